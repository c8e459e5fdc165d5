// The loader of the addon, and the only place that knows the .node file. What the functions promise is written here;
// how they keep it, in src/. Loads in worker threads too. Reads no configuration.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Segment {
  /** Holds the lock. Pass it to workers as an extra stdio descriptor; keep it open as long as the gateway runs. */
  readonly fd: number
  /**
   * A mapping of the first bytes asked for. It lives as long as JavaScript can reach it, whatever happens to fd or
   * file.
   */
  readonly buffer: ArrayBuffer
  /**
   * This call made the file. False says only that it was there: it may be empty, or from a start that never finished.
   */
  readonly created: boolean
  /** The file's size now: more than was asked for when it was larger already. */
  readonly bytes: number
}

export interface AcceptOptions {
  /**
   * A listening socket. The acceptor owns it from here on and closes it in close(); if accept throws, it is still the
   * caller's.
   */
  readonly fd: number
  /** Open connections of every worker, shared by all of them; -1 where there is no such worker. */
  readonly counts: Int32Array
  /** This worker's index in counts. onConnection or whoever counts for it must raise it before returning. */
  readonly self: number
  /**
   * Gets a connected, non-blocking socket and owns it. What it throws goes to the door's onException, or becomes an
   * uncaughtException where there is no door. The descriptor is then closed, unless something in this event loop
   * already polls it.
   */
  readonly onConnection: OnConnection
  /** Null: connections are handed over as they come. */
  readonly door: Door | null
  /** EMFILE and the like, at most ten times a second: accepting pauses for 100 ms and goes on by itself. */
  readonly onError: (code: string) => void
}

/**
 * `address` is that of the other end, or the one that a proxy has announced (RFC 5952; IPv4 where it is mapped). A
 * `relayed` connection carries requests of HTTP/1.0, written as HTTP/1.1, each behind a PROXY header with its client's
 * address; it is not in `counts`. Where this thread has a gate, what was received goes in with the connection: an app
 * that the gate guards has to adopt it before this returns. `place` is where in `places` its address is counted:
 * whoever gets the connection takes one off there when it ends. -1: nowhere.
 *
 * An app that it returns gets the address's next connections by its adoptSocket(fd), without a call of this, until
 * Acceptor.forget; those that are counted by address excepted. Only where there is a door.
 */
export type OnConnection = (
  fd: number,
  address: string,
  relayed: boolean,
  announced: boolean,
  place: number,
) => { adoptSocket(fd: number): unknown } | undefined

/**
 * What happens to connections before they are handed over: they are counted, and each waits until its first request's
 * head is complete, or can be none.
 */
export interface Door {
  /** For that, from the moment it was accepted. After it, 408 and the end. */
  readonly headTimeoutMs: number
  /**
   * Raised by one for each connection that is turned away. 0: its head came too slowly; 1: a PROXY header was wrong,
   * missing or not asked for; 2: over maxConnections; 3: over maxPerAddress; 4: no descriptors are left for it.
   */
  readonly tallies: Float64Array
  /** Whether a proxy has this address that is believed about whom it speaks for. */
  readonly isTrusted: (address: string) => boolean
  /**
   * Connections from trusted addresses must begin with a PROXY protocol header, which is taken off. From others one is
   * always refused.
   */
  readonly proxyProtocol: boolean
  /** Over all workers; 0: any number. Who comes when it is reached is answered 503. */
  readonly maxConnections: number
  /** Over all workers, from one address (IPv6: one /64) that is not trusted; 0: any number. 503 as well. */
  readonly maxPerAddress: number
  /** A block for each worker, shared by all of them (src/address_counts.h); may be empty without maxPerAddress. */
  readonly places: Int32Array
  /** 53 random bits, the same in every worker. */
  readonly addressSeed: number
  /**
   * First bytes are a handshake: nothing but a PROXY header is read, nobody is told why, and whoever has said anything
   * is handed over.
   */
  readonly tls: boolean
  /**
   * Most connections of this worker, which has descriptors for no more. A request of HTTP/1.0 counts as three while it
   * lasts. 503 as well.
   */
  readonly room: number
  /** A connection whose descriptor is this one or a higher one is refused too, whatever has taken the others. */
  readonly highestFd: number
  /** Requests of HTTP/1.0 are relayed. If not, the server gets them as they are. */
  readonly relays: boolean
  /**
   * Gets what onConnection or isTrusted throws. The connection is then closed, unless something in this event loop
   * already polls it.
   */
  readonly onException: (error: unknown) => void
}

export interface Acceptor {
  /**
   * For everybody who has this listening socket, and for good: no connection that is not being made already. What opens
   * one is not answered, so that who sends it tries again a second later. Where the kernel cannot do that, nothing
   * changes.
   */
  refuseNew(): void
  /** Whatever is in the queue now, without leaving any to others. */
  takeAll(): void
  /**
   * Stops accepting and closes this process's copy of the listening descriptor. May be called twice, and from
   * onConnection. Who waits at the door has so long for the head, and is then sent away without a word; requests of
   * HTTP/1.0 are seen through.
   */
  close(waitMs: number): void
  /** Changes `room`. */
  makeRoom(connections: number): void
  /** onConnection is asked again whose connections of this address are; of every one if it is ''. */
  forget(address: string): void
  /** Connections at the door that have not been handed over. */
  waiting(): number
  /** Requests of HTTP/1.0 whose answer has not left this process yet. */
  relays(): number
}

/**
 * Sockets of this thread, told apart by numbers. What happens in a turn of the event loop is told in one call, and what
 * is to be written comes in one; `memory` is where both find what it is about (src/wire.cc draws it). A number that is
 * closed, or none, does nothing.
 */
export interface NativeWire {
  /** The arena, and behind it 32-bit words. Bytes there last until onTurn returns. */
  readonly memory: ArrayBuffer
  /**
   * With TCP_NODELAY and keep-alive. What can be wrong but the arguments is told of later. A number is used again a
   * turn after close() at the earliest.
   */
  connect(address: string, port: number): number
  /** The same over a Unix socket: an absolute path of at most 107 bytes. A full backlog is told of as EAGAIN. */
  connectUnix(path: string): number
  /**
   * A character a byte, for `count` connections, 1024 at most; words[SENDS + 2i] is whom the next words[SENDS + 2i + 1]
   * of them are for.
   */
  send(text: string, count: number): void
  /**
   * The three of them together. False: some of it waits, and a record tells when it has left; `body` must not change
   * until then.
   */
  write(id: number, before: string, body: Uint8Array, after: string): boolean
  /**
   * The mark that records of reads have from now on that begin with the text. It forgets what was remembered before,
   * whose mark may still come.
   */
  remember(id: number, text: string): number
  pause(id: number): void
  resume(id: number): void
  /** Nothing more is told of it. What waits to be written is lost. */
  close(id: number): void
}

/** Opaque; wiped when it is collected. */
export type HmacKey = { readonly __hmacKey: never }

/** Errors of the system have `code` and `syscall`; a wrong argument is a TypeError that names it. */
export interface Native {
  /**
   * Opens or creates the file (mode 0600), locks it, and grows it to `bytes` (1 to 2^31) on blocks of its own: a full
   * disk is ENOSPC here and never a SIGBUS later. Never truncates. `null`: anonymous memory, created every time.
   * ELOCKED: another process holds it. EUNSAFE: not a regular file, not ours, open to others, or linked twice. ELOOP: a
   * symlink. EFOREIGN: the file is not empty, and neither its first nor its second page begins with the magic. A file
   * that is cut short later costs what was in it: its length is given back, with zeros for what is gone, and all
   * mappings stay.
   * @param magic up to 8 bytes that a new file begins with; '' for any
   * @param held the file's descriptor with its lock, where a predecessor has handed it over; used up if this succeeds.
   * ESTALE: it is not the file at the path
   */
  openSegment(path: string | null, bytes: number, magic?: string, held?: number): Segment
  /**
   * Puts a new, zeroed and locked file in the place of one that does not fit, and closes `fd`, the segment's descriptor
   * from openSegment, if it succeeds. Mappings of the old file keep its memory. The path names a locked file at each
   * moment.
   */
  replaceSegment(fd: number, path: string, bytes: number, magic?: string): Segment
  /**
   * Maps an inherited segment descriptor and closes it, so that the lock ends with the primary. On error fd stays open.
   */
  attachSegment(fd: number, bytes: number): ArrayBuffer
  /**
   * A listening socket on an IPv4 or IPv6 address; '' and '::' take both families, port 0 any free port. Connections
   * arrive with their first bytes (TCP_DEFER_ACCEPT), or after about 3 s without. EADDRINUSE, EACCES, EADDRNOTAVAIL.
   */
  listen(host: string, port: number, backlog: number): { fd: number; port: number }
  /** The same of a socket that listens already, as a service manager passes it on. EINVAL: it is not one. */
  adoptListener(fd: number): { fd: number; port: number }
  accept(options: AcceptOptions): Acceptor
  /**
   * Puts the gate (src/uws/gate.cc) before the parser of the uWebSockets.js that is loaded; once in each thread.
   * `onBadBody` gets the `exchange` of a chunked body that is malformed, while it can still be answered: the connection
   * is closed when it returns. ENOTSUP: this build of uWebSockets.js has no place for it.
   */
  openGate(options: GateOptions): Gate
  /**
   * Connections of the loaded uWebSockets.js cost fewer system calls from now on (src/uws/syscalls.cc). To be called
   * before there is a connection, on a process's main thread. False: that build gives no place for it, and nothing has
   * changed. The connections do not keep the process.
   * @param isLastWrite one element: not 0 while JavaScript writes the end of a response with which its connection ends
   */
  spareSyscalls(isLastWrite: Uint8Array): boolean
  /** Takes that back. False, and nothing changes, while a connection is open that was opened since. */
  unspareSyscalls(): boolean
  /** Names a function whose exchange is not in effect, or does not pass on what it is not meant for; '' if none. */
  proveSyscalls(): string
  /** Whether this connection is one that costs fewer system calls. */
  isSpared(fd: number): boolean
  /** The two ends of a connection, non-blocking. The caller owns them. */
  socketPair(): [number, number]
  /**
   * A listening socket, and the client's end of a connection that waits in its queue, both non-blocking. The caller
   * owns them.
   */
  queuedConnection(): [number, number]
  /**
   * Once in each thread; lasts as long as that. `onTurn` is called when the poll phase is over, and before the next
   * one, if there are records or JavaScript has set the first word behind the arena, which it takes back itself; within
   * the poll phase when the arena is full. @param arenaBytes a multiple of 8, 128 KiB at least
   */
  openWire(arenaBytes: number, onTurn: (records: number) => void): NativeWire
  /**
   * The state of HMAC-SHA256 after its key, which is padded to a block of 64 bytes (RFC 2104, section 2). Absent
   * without OpenSSL's headers.
   */
  hmacKey?(key: Uint8Array): HmacKey
  /**
   * Whether `hex`, lower case, is the MAC of the message's UTF-8 bytes, of which there are less than 4092. In constant
   * time.
   */
  hmacMatches?(key: HmacKey, message: string, hex: string): boolean
  /** To a Unix socket, '@' at the beginning for an abstract one. Never waits. */
  sendDatagram(path: string, text: string): void
  /**
   * Over a connected Unix socket, to a process of our own user (else EPERM), with a text of less than 8 KiB. They stay
   * open here.
   */
  sendDescriptors(fd: number, descriptors: readonly number[], text: string): void
  /**
   * Connects to a Unix socket of our own user and blocks, for 5 s at most, until its other end has sent them. ENOENT,
   * ECONNREFUSED: nobody is there. `fd` is the connection, for whatever else is to be said.
   */
  receiveDescriptors(path: string): { fd: number; descriptors: number[]; text: string }
  closeFd(fd: number): void
}

export interface GateOptions {
  readonly onBadBody: (exchange: unknown) => void
  /** Of fields: one of them has its position, plus 1, in `marks`. */
  readonly names: readonly string[]
  /**
   * Raised by one for each head that is refused: 0: its request line; 1: the end of a line; 2: the name of a field; 3:
   * the value of one; 4: not one Host; 5: a length together with chunks; 6: too long, too many fields, or no memory
   * left for it; 7: by uWebSockets.js' parser. And for each connection that had a request and is closed: 8: for nothing
   * came; 9: as its next head came too slowly. For each that endStuck() ends: 10: nobody read from it; 11: nobody was
   * going to answer.
   */
  readonly tallies: Float64Array
  /** For a head, from its first byte on. Both in steps of 4 s. */
  readonly headTimeoutMs: number
  /** From an answer to the next head; less than 10 s is 10 s. */
  readonly idleTimeoutMs: number
  /** Most bytes of a head. */
  readonly maxHeaderBytes: number
  /**
   * The gate's own responses, whole but for a Date: 0: bad request; 1: too slow; 2: the target is too long; 3: the head
   * is; 4: the method is; 5: another version; 6: no memory is left for heads.
   */
  readonly refusals: readonly string[]
}

export interface Gate {
  /** Refusals are counted in this array from now on. */
  countRefusals(tallies: Float64Array): void
  /** Whether a connection's first bytes go in with it from the acceptor. It begins with true. */
  takeFirstBytes(taken: boolean): void
  /** How many connections the gate keeps a record of. */
  connections(): number
  /**
   * A word for each connection. [0] says whose request is being handled, -1 for one without a word, and is set to 0 by
   * who has read it. That word is 1 until the answer is complete and JavaScript sets it to 0, or to 3 where the
   * connection ends with that answer; 2 where more has come meanwhile. Resume is called for where a 2 becomes 0, and
   * where uWebSockets could not be told of the end.
   */
  readonly states: Int32Array
  /** With the next turn of the loop. Where the word is 3, the connection is closed then, or once the answer is out. */
  resume(state: number): void
  /**
   * From a timer: looks at some of the connections, and ends those on which nothing would ever happen again, once it
   * has seen them so twice. `owned`, as long as `states`: not 0 for connections with a request that a deadline runs
   * for. Returns how many it has ended.
   */
  endStuck(owned: Uint8Array): number
  /**
   * Connections of this app pass the gate. `descriptor` is what app.getDescriptor() returns; before the app has
   * connections. `relayed`: they are the acceptor's, which puts a PROXY header before each request; in cleartext alone.
   */
  guard(descriptor: number, tls: boolean, relayed: boolean): void
  /**
   * From within a request's handler: so many bytes follow its head, -1 for chunks. False where that head did not come
   * through the gate: uWebSockets.js then reads the body by its own rules.
   */
  expectBody(bytes: number, exchange: unknown): boolean
  /**
   * Sends 100 Continue to that connection's client, before its answer. uWebSockets does it where the field's value, as
   * readHead has it, is in lower case; the gate puts it in other letters where it can.
   */
  continueRequest(state: number): void
  /**
   * From within a request's handler: its head, a character a byte, names in lower case, and behind it the authority of
   * a target in absolute-form; null where it did not come through the gate. Where its parts are is then in `marks`,
   * until the handler returns.
   */
  readHead(): string | null
  /**
   * As native/src/uws/head_marks.h lays them out. A field whose name is among `names` has its position there, plus 1.
   */
  readonly marks: Int32Array
}

interface Addon extends Omit<Native, 'accept' | 'openGate'> {
  openGate(
    onBadBody: GateOptions['onBadBody'],
    names: readonly string[],
    tallies: Float64Array,
    headMs: number,
    idleMs: number,
    mostHeadBytes: number,
    refusals: readonly string[],
  ): { states: Int32Array; marks: Int32Array }
  countRefusals(tallies: Float64Array): void
  takeFirstBytes(taken: boolean): void
  gatedConnections(): number
  resumeConnection(state: number): void
  endStuckConnections(owned: Uint8Array): number
  guardApp(descriptor: number, tls: boolean, relayed: boolean): void
  expectBody(bytes: number, exchange: unknown): boolean
  continueRequest(state: number): void
  readHead(): string | null
  startAccepting(
    fd: number,
    counts: Int32Array,
    self: number,
    onConnection: OnConnection,
    onError: (code: string) => void,
    headTimeoutMs: number,
    ...door: unknown[]
  ): unknown
  refuseNew(handle: unknown): void
  takeAll(handle: unknown): void
  stopAccepting(handle: unknown, waitMs: number): void
  waitingAtDoor(handle: unknown): number
  relaysUnderWay(handle: unknown): number
  forgetApp(handle: unknown, address: string): void
  makeRoom(handle: unknown, connections: number): void
}

function load(): Native | string {
  if (process.platform !== 'linux') return `the native addon needs Linux, this is ${process.platform}`
  // dist/native/ when compiled, native/ under vitest: the package's root is the next package.json upwards.
  let root = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(root, 'package.json')) && dirname(root) !== root) root = dirname(root)
  const file = join(root, 'native', 'build', 'Release', 'tidegate.node')
  if (!existsSync(file)) return 'the native addon is not built (npm rebuild builds it where there is a C++ compiler)'
  try {
    const addon = createRequire(import.meta.url)(file) as Addon
    const {
      startAccepting,
      refuseNew,
      takeAll,
      stopAccepting,
      waitingAtDoor,
      relaysUnderWay,
      forgetApp,
      makeRoom,
      openGate,
      guardApp,
      countRefusals,
      takeFirstBytes,
      gatedConnections,
      resumeConnection,
      endStuckConnections,
      ...rest
    } = addon
    return {
      ...rest,
      openGate({ onBadBody, names, tallies, headTimeoutMs, idleTimeoutMs, maxHeaderBytes, refusals }) {
        const times = [headTimeoutMs, idleTimeoutMs] as const
        const memory = openGate(onBadBody, names, tallies, ...times, maxHeaderBytes, refusals)
        return {
          ...memory,
          countRefusals,
          takeFirstBytes,
          connections: gatedConnections,
          guard: guardApp,
          expectBody: rest.expectBody,
          continueRequest: rest.continueRequest,
          readHead: rest.readHead,
          resume: resumeConnection,
          endStuck: endStuckConnections,
        }
      },
      accept({ fd, counts, self, onConnection, onError, door }) {
        const handle =
          door === null
            ? startAccepting(fd, counts, self, onConnection, onError, 0)
            : startAccepting(
                ...([
                  fd,
                  counts,
                  self,
                  onConnection,
                  onError,
                  door.headTimeoutMs,
                  door.tallies,
                  door.isTrusted,
                ] as const),
                ...[
                  door.proxyProtocol,
                  door.maxConnections,
                  door.maxPerAddress,
                  door.places,
                  door.addressSeed,
                  door.tls,
                  door.room,
                  door.highestFd,
                  door.relays,
                  door.onException,
                ],
              )
        return {
          refuseNew: () => refuseNew(handle),
          takeAll: () => takeAll(handle),
          close: (waitMs) => stopAccepting(handle, waitMs),
          waiting: () => waitingAtDoor(handle),
          relays: () => relaysUnderWay(handle),
          forget: (address) => forgetApp(handle, address),
          makeRoom: (connections) => makeRoom(handle, connections),
        }
      },
    }
  } catch (error) {
    return `the native addon does not load: ${String((error as Error).message).split('\n')[0]}`
  }
}

const loaded = load()
/** null where the addon could not be built or loaded: workers are threads then. */
export const native: Native | null = typeof loaded === 'string' ? null : loaded
/** Why native is null, as the end of a sentence; '' when it is there. */
export const nativeProblem: string = typeof loaded === 'string' ? loaded : ''
