// What one attempt asks of its endpoint. Plain data, in the shape that undici's dispatchers take.
import type { Dispatcher } from 'undici'

/** undici takes servername and does not say so in its types. */
export type UpstreamRequest = Dispatcher.DispatchOptions & { readonly servername: string }
