// `tidegate sign`: prints the headers of one signed request, or the curl command that sends it. Offline: only files
// that the options name are read.
import { readFileSync } from 'node:fs'
import { ConfigError, loadConfig, resolveSecret } from '../config/load.js'
import { type Algorithm, type Signer, sign, signedBodyHash } from '../policy/signature.js'
import { messageFields } from './sign-message.js'

export interface SignRequestOptions {
  consumer?: string
  secret?: string
  config?: string
  url: string
  method?: string
  header?: string[]
  data?: string
  dataFile?: string
  unsignedBody?: boolean
  algorithm?: Algorithm
  legacy?: boolean
  time?: string
  keyId?: string
  key?: string
  base64?: boolean
  curl?: boolean
}

/** @throws ConfigError if an option or the file it names is invalid */
export function signRequest(options: SignRequestOptions): string {
  const url = requestUrl(options.url)
  const body = bodyOf(options)
  const method = options.method ?? (body === null ? 'GET' : 'POST')
  const time = options.time ?? String(Math.floor(Date.now() / 1000))
  const headers =
    options.keyId === undefined
      ? xmHeaders(options, url, method, body, time)
      : messageHeaders(options, url, method, body, time)
  return options.curl === true ? curlCommand(options, method, url, headers) : headers.join('\n')
}

function xmHeaders(options: SignRequestOptions, url: URL, method: string, body: Buffer | null, time: string): string[] {
  const { signer, secret } = whoSigns(options)
  const target = url.pathname + url.search
  const mac = sign(signer, secret, time, method, target, signedBodyHash(options.unsignedBody !== true, body))
  return [`x-source: ${signer.name}`, `x-time: ${time}`, `x-m: ${mac}`]
}

function messageHeaders(
  { keyId = '', key = '', base64, header = [], unsignedBody }: SignRequestOptions,
  url: URL,
  method: string,
  body: Buffer | null,
  time: string,
): string[] {
  const resolved = resolveSecret(key)
  if ('problem' in resolved) throw new ConfigError([`--key: ${resolved.problem}`])
  const given = header.find((line) => /^host:/i.test(line))
  const request = { method, path: url.pathname, query: url.search.slice(1), hasQuery: url.search !== '' }
  return messageFields(
    request,
    url.protocol === 'https:' ? 'https' : 'http',
    given === undefined ? url.host : given.slice('host:'.length).trim(),
    unsignedBody === true ? null : body,
    { id: keyId, text: resolved.secret, encoding: base64 === true ? 'base64' : 'utf8' },
    Number(time),
  )
}

function requestUrl(text: string): URL {
  const url = /^https?:\/\//i.test(text) && URL.canParse(text) ? new URL(text) : null
  if (url === null) throw new ConfigError([`--url: "${text}" is not an http:// or https:// URL`])
  url.hash = ''
  return url
}

function whoSigns({ consumer: name = '', secret: given, config: file, algorithm, legacy }: SignRequestOptions): {
  signer: Signer
  secret: string
} {
  if (given !== undefined) {
    const resolved = resolveSecret(given)
    if ('problem' in resolved) throw new ConfigError([`--secret: ${resolved.problem}`])
    return {
      signer: { name, algorithm: algorithm ?? 'sha256', signs: legacy === true ? 'legacy' : 'request' },
      secret: resolved.secret,
    }
  }
  const { config, origin } = loadConfig({ file })
  const consumer = Object.hasOwn(config.consumers, name) ? config.consumers[name] : undefined
  if (consumer === undefined) throw new ConfigError([`--consumer: ${origin} has no consumer "${name}"`])
  const [secret] = consumer.secret
  if (secret === undefined) throw new ConfigError([`--consumer: "${name}" has no secret to sign with`])
  return {
    signer: { name, algorithm: algorithm ?? consumer.algorithm, signs: legacy === true ? 'legacy' : consumer.signs },
    secret,
  }
}

function bodyOf({ data, dataFile }: SignRequestOptions): Buffer | null {
  if (data !== undefined) return Buffer.from(data)
  if (dataFile === undefined) return null
  try {
    return readFileSync(dataFile)
  } catch (error) {
    throw new ConfigError([`--data-file: ${dataFile} cannot be read (${(error as NodeJS.ErrnoException).code})`])
  }
}

function curlCommand(options: SignRequestOptions, method: string, url: URL, signature: readonly string[]): string {
  const words = ['curl', '-i']
  const hasBody = options.data !== undefined || options.dataFile !== undefined
  if (method === 'HEAD') words.push('--head')
  else if (method !== (hasBody ? 'POST' : 'GET')) words.push('-X', quote(method))
  // curl would expand these as patterns and send a request other than the signed one.
  if (/[[\]{}]/.test(url.href)) words.push('--globoff')
  words.push(quote(url.href))
  for (const header of [...(options.header ?? []), ...signature]) words.push('-H', quote(header))
  if (options.data !== undefined) words.push('--data-raw', quote(options.data))
  else if (options.dataFile !== undefined) words.push('--data-binary', quote(`@${options.dataFile}`))
  return words.join(' ')
}

/** Quotes a text for a POSIX shell. */
function quote(word: string): string {
  return /^[A-Za-z0-9_./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
