// The `tidegate` command and its subcommands. Only `start` and `simulate` import gateway code; all but `start` work
// offline. Bad input exits with 2 and one line per problem on stderr.
import '../worker/no-debugger.js'
import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { ConfigError, type Loaded, loadConfig } from '../config/load.js'
import type { SignRequestOptions } from './sign-request.js'
import type { SimulateOptions } from './simulate/simulate.js'

const BAD_INPUT = 2

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

const program = new Command('tidegate')
  .description('An HTTP gateway: signatures, exact rate limits and circuit breakers shared by every core.')
  .version(version)
  .helpCommand(false)
  .showSuggestionAfterError()
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, errorMark())) })
  .addHelpText(
    'after',
    `
Examples:
  tidegate start --demo                       a gateway on port 8080 in front of a demo service
  tidegate check tidegate.yaml                is this configuration valid?
  tidegate routes tidegate.yaml               which route comes first?
  tidegate diff running.yaml tidegate.yaml    what would a reload change?
  tidegate simulate tidegate.yaml access.log  what would it have done with recorded requests?
  tidegate sign --help                        how to sign a request
  tidegate schema > tidegate.schema.json      completion and checks in an editor

The configuration is FILE, else $TIDEGATE_CONFIG, else tidegate.yaml. Invalid input ends with exit code 2.`,
  )

program
  .command('start')
  .description('start the gateway; SIGTERM drains and stops it, SIGHUP reloads the configuration')
  .argument('[file]', 'configuration, YAML or JSON')
  .option('--demo', 'without a file: a gateway with a demo service, route and consumer')
  .addOption(new Option('--takeover', 'replace the running gateway, which finishes its requests').conflicts('demo'))
  .action(async (file: string | undefined, options: { demo?: boolean; takeover?: boolean }) => {
    if (options.demo === true && file !== undefined)
      program.error('error: --demo takes no file', { exitCode: BAD_INPUT })
    const loaded = options.demo === true ? null : loadOrExplain(file)
    const { startDemo, startGateway, StartError } = await import('./start.js')
    try {
      process.exit(await (loaded === null ? startDemo() : startGateway(loaded, options.takeover === true)))
    } catch (error) {
      // A port in use, or no worker starts: nothing is left running, but handles may remain.
      process.stderr.write(`${errorMark()}${error instanceof StartError ? error.message : (error as Error).stack}\n`)
      process.exit(error instanceof StartError ? BAD_INPUT : 1)
    }
  })

program
  .command('check')
  .description('validate a configuration and the settings without starting anything')
  .argument('[file]', 'configuration, YAML or JSON')
  .action(async (file: string | undefined) => {
    const { describeConfig } = await import('./listings.js')
    const { spellingWarnings } = await import('./spellings.js')
    const loaded = loadOrExplain(file)
    print(describeConfig(loaded))
    for (const warning of spellingWarnings(loaded))
      process.stderr.write(`${paint(process.stderr, 33, 'warning:')} ${warning}\n`)
  })

program
  .command('routes')
  .description('print the routes, in the order in which they are asked')
  .argument('[file]', 'configuration, YAML or JSON')
  .option('--json', 'print JSON')
  .action(async (file: string | undefined, options: { json?: boolean }) => {
    const { listRoutes, routesAsJson } = await import('./listings.js')
    const loaded = loadOrExplain(file)
    print(options.json === true ? routesAsJson(loaded) : listRoutes(loaded, (text) => paint(process.stdout, 1, text)))
  })

program
  .command('diff')
  .description('print what a reload from one configuration to another would change')
  .argument('<old>', 'configuration, YAML or JSON')
  .argument('<new>', 'configuration, YAML or JSON')
  .action(async (before: string, after: string) => {
    const { diffConfigs } = await import('../config/diff.js')
    const changes = diffConfigs(loadConfig({ file: before }).config, loadConfig({ file: after }).config)
    print(changes.length === 0 ? 'nothing changes' : changes.join('\n'))
  })

program
  .command('simulate')
  .description('replay access logs: what would limits, breakers and retries of a configuration have done?')
  .argument('[names...]', 'configuration, then access logs: files, also .gz, or - for standard input')
  .option('--compare <names...>', 'OLD NEW: print what differs between two configurations instead')
  .option('--json', 'print JSON')
  .option('--fail-on-change', 'end with exit code 1 if a request ends differently')
  .addHelpText(
    'after',
    `
Examples:
  tidegate simulate tidegate.yaml access.log
  tidegate simulate --compare running.yaml tidegate.yaml access.log access.log.1.gz
  journalctl -u tidegate -o cat | tidegate simulate tidegate.yaml -`,
  )
  .action(async (names: string[], options: SimulateOptions) => {
    const { simulate } = await import('./simulate/simulate.js')
    const { text, changed } = await simulate(names, options, (text) => paint(process.stdout, 1, text))
    print(text)
    if (changed && options.failOnChange === true) process.exitCode = 1
  })

program
  .command('schema')
  .description('print the JSON Schema of the configuration file, for editors')
  .action(async () => {
    const { jsonSchema } = await import('../config/schema.js')
    print(JSON.stringify(jsonSchema(), null, 2))
  })

program
  .command('hash')
  .description('read an API key or password from standard input and print the hash for the configuration')
  .addOption(new Option('--for <use>', 'kind of secret').choices(['api-key', 'password']).makeOptionMandatory())
  .action(async (options: { for: 'api-key' | 'password' }) => {
    const { keepApiKey, scryptForm } = await import('../config/kept.js')
    const text = (await readStdin()).replace(/\r?\n$/, '')
    if (text === '') throw new ConfigError(['standard input is empty'])
    const kept = options.for === 'password' ? { kept: scryptForm(text) } : keepApiKey(text)
    if ('problem' in kept) throw new ConfigError([`the secret ${kept.problem}`])
    print(kept.kept)
  })

program
  .command('sign')
  .description('print the headers that sign a request (auth: x-m; with --key-id: http-signature)')
  .option('--consumer <name>', 'the consumer that signs, sent as x-source')
  .option(
    '--secret <secret>',
    "its secret: the text, env:NAME or file:PATH (default: the consumer's first secret in the configuration)",
  )
  .option('-c, --config <file>', 'configuration that has the secret')
  .requiredOption('--url <url>', 'URL of the request; path and query are signed as --curl prints them')
  .option('-X, --method <method>', 'method (default: GET, or POST with a body)')
  .option('-H, --header <header>', "header of the printed command, 'Name: value'; may be repeated", collect)
  .addOption(new Option('--data <text>', 'body of the request').conflicts('dataFile'))
  .option('--data-file <path>', 'file with the body, sent byte for byte')
  .option('--unsigned-body', 'leave the body out of the signature (signBody: false)')
  .addOption(new Option('--algorithm <name>', 'hash function of the HMAC').choices(['sha256', 'sha1', 'md5']))
  .option('--legacy', 'sign only source and time (signs: legacy)')
  .option('--time <seconds>', 'Unix time to sign (default: now)', unixSeconds)
  .addOption(
    new Option('--key-id <keyid>', 'sign as RFC 9421 defines, with this keyid').conflicts(['consumer', 'secret']),
  )
  .option(
    '--key <key>',
    'key for --key-id: a PEM private key, or the secret of hmac-sha256; the text, env:NAME or file:PATH',
  )
  .option('--base64', 'the secret of hmac-sha256 is in base64')
  .option('--curl', 'print a complete curl command instead of headers')
  .addHelpText(
    'after',
    `
Examples:
  tidegate sign --consumer test --secret env:TEST_SECRET --url http://127.0.0.1:8080/ -H 'Host: demo.i.com'
  eval "$(tidegate sign --consumer test -c tidegate.yaml --url http://127.0.0.1:8080/orders --data '{"n":1}' --curl)"`,
  )
  .action(async (options: SignRequestOptions) => {
    const [signer, other] =
      options.keyId === undefined ? (['consumer', '--consumer <name>'] as const) : (['key', '--key <key>'] as const)
    if (options[signer] === undefined) program.error(`error: required option '${other}' not specified`)
    const { signRequest } = await import('./sign-request.js')
    print(signRequest(options))
  })

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof ConfigError) {
    for (const problem of error.problems) process.stderr.write(`${errorMark()}${problem}\n`)
    process.exitCode = BAD_INPUT
  } else if (error instanceof CommanderError) {
    // Commander has already printed the error; its own exit code would be 1.
    process.exitCode = error.exitCode === 0 ? 0 : BAD_INPUT
  } else {
    process.stderr.write(`${errorMark()}${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}

function loadOrExplain(file: string | undefined): Loaded {
  try {
    return loadConfig({ file })
  } catch (error) {
    if (!(error instanceof ConfigError) || !error.missingFile) throw error
    throw new ConfigError([
      `${error.problems.join('\n')}

Name a configuration (tidegate start FILE, or TIDEGATE_CONFIG), or write one:

  services:
    demo: { endpoints: ['http://127.0.0.1:9000'] }
  routes:
    - { match: { path: / }, service: demo, auth: none }

To see the gateway work without one: tidegate start --demo`,
    ])
  }
}

function collect(value: string, previous: string[] = []): string[] {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+:/.test(value)) throw new InvalidArgumentError("Write 'Name: value'.")
  return [...previous, value]
}

function unixSeconds(value: string): string {
  if (!/^\d{1,12}$/.test(value)) throw new InvalidArgumentError('Unix seconds are digits.')
  return value
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

function errorMark(): string {
  return `${paint(process.stderr, 31, 'error:')} `
}

/** SGR codes for a terminal with colours; hasColors() respects NO_COLOR. */
function paint(stream: NodeJS.WriteStream, code: number, text: string): string {
  return stream.isTTY && stream.hasColors() ? `\u001b[${code}m${text}\u001b[0m` : text
}
