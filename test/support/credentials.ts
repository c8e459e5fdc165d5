// Credentials as a caller sends them and as the configuration keeps them.
import { createHash, scryptSync } from 'node:crypto'

const SALT = 'sixteen bytes so'

/** A key or a long password. */
export const keptAsSha256 = (secret: string): string => `sha256:${createHash('sha256').update(secret).digest('hex')}`

/** A password. @param logN what a check of it costs, as a power of two */
export function keptAsScrypt(password: string, logN = 14): string {
  const hash = scryptSync(password, SALT, 32, { N: 2 ** logN, r: 8, p: 1 })
  return `$scrypt$ln=${logN},r=8,p=1$${Buffer.from(SALT).toString('base64')}$${hash.toString('base64')}`
}

/** The value of Authorization. */
export const basic = (user: string, password: string, scheme = 'Basic'): string =>
  `${scheme} ${Buffer.from(`${user}:${password}`).toString('base64')}`
