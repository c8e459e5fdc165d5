// Which transport this process uses for its upstream connections: the addon's wire, or node:net where there is no
// addon.
import { native } from '../../../native/index.js'
import { NativeTransport } from './native-transport.js'
import { NodeTransport } from './node-transport.js'
import type { Transport } from './transport.js'

export const transport: Transport = native === null ? new NodeTransport() : new NativeTransport(native)
