// Options of the TLS listener: certificates, the oldest version, client certificates. TLS towards services is in
// services.ts; certificates.ts checks that the files fit together.
import { z } from 'zod'
import { file, host, listOf, secret } from './values.js'

export const tlsSchema = z
  .strictObject({
    certificates: listOf(
      z.strictObject({
        cert: file.describe('PEM file of the certificate, followed by its chain.'),
        key: file.describe('PEM file of its private key: RSA, or ECDSA on P-256, P-384 or P-521.'),
        passphrase: secret.optional().describe('Passphrase of an encrypted key, as text, env:NAME or file:PATH.'),
        names: listOf(host)
          .optional()
          .describe(
            'Server names (SNI) that select this certificate, exact or *.suffix. Default: the DNS names in the certificate.',
          ),
      }),
    ).describe('Certificates of the listener. The first also serves clients without SNI, or with an unknown name.'),
    minVersion: z
      .literal(['1.2', '1.3', 1.2, 1.3])
      .default('1.2')
      .transform(String)
      .describe('Oldest TLS version to accept: 1.2 or 1.3.'),
    clientCa: file.optional().describe('PEM file of the certificate authorities that issue client certificates.'),
    clientAuth: z
      .enum(['none', 'request', 'require'])
      .default('none')
      .describe(
        'request: clients may send a certificate; one that clientCa did not issue fails the handshake. require: requests without a certificate get 403.',
      ),
    clientName: z
      .enum(['cn', 'dns', 'uri', 'email'])
      .default('cn')
      .describe(
        "Which names of a client's certificate identify it: the common name, or the alternative names of one kind.",
      ),
  })
  .superRefine((tls, context) => {
    const issue = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message })
    if (tls.clientAuth !== 'none' && tls.clientCa === undefined)
      issue('clientAuth', 'needs clientCa, to know whom to believe')
    if (tls.clientAuth === 'none' && tls.clientCa !== undefined)
      issue('clientCa', 'has no effect without clientAuth: request or require')
  })
  .describe(
    'TLS for the listener. Without this key it speaks cleartext. File paths are relative to this file; the files are read again when they change.',
  )
