// Options of the TLS listener: certificates, the oldest version, client certificates. TLS towards services is in services.ts;
// certificates.ts checks that the files fit together.
import { z } from 'zod'
import { file, host, listOf, secret } from './values.js'

export const tlsSchema = z
  .strictObject({
    certificates: listOf(
      z.strictObject({
        cert: file.describe('File of the certificate, PEM: its own first, then the chain.'),
        key: file.describe('File of its private key, PEM: RSA, or ECDSA on P-256, P-384 or P-521.'),
        passphrase: secret.optional().describe('Of an encrypted key: the text, env:NAME or file:PATH.'),
        names: listOf(host)
          .optional()
          .describe('Names (SNI) it is for, exact or *.suffix. Default: the DNS names in the certificate.'),
      }),
    ).describe('The first is also for clients that ask for no name, or for one that none is for.'),
    minVersion: z
      .literal(['1.2', '1.3', 1.2, 1.3])
      .default('1.2')
      .transform(String)
      .describe('Oldest version of TLS that is spoken: 1.2 or 1.3.'),
    clientCa: file.optional().describe('File of the authorities that vouch for clients, PEM.'),
    clientAuth: z
      .enum(['none', 'request', 'require'])
      .default('none')
      .describe(
        'request: clients may show a certificate; one that clientCa did not issue ends the handshake. require: and who shows none is answered 403.',
      ),
    clientName: z
      .enum(['cn', 'dns', 'uri', 'email'])
      .default('cn')
      .describe(
        "What of a client's certificate says who it is: the common name, or the alternative names of one kind.",
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
    'The listener speaks TLS. File paths are relative to this file; the files are read again when they change. Without this key it speaks cleartext.',
  )
