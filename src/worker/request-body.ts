// The phase for a request's body: it waits for the whole body if the credentials cover it; otherwise the body streams
// to the handler. The readers of bodies are in downstream/. Runs per request.
import { type BodyRules, checkLength } from '../downstream/body.js'
import { ClientUpload } from '../downstream/upload.js'
import { WholeBody } from '../downstream/whole-body.js'
import type { Exchange } from '../exchange/exchange.js'
import { LATER, type Phase, type Resume } from '../exchange/phase.js'

/** @param isCovered whether the credentials of the request cover its body; null for a route where none do */
export function bodyPhase(
  rules: BodyRules,
  resume: Resume,
  isCovered: ((exchange: Exchange) => boolean) | null,
): Phase {
  return (exchange) => {
    if (exchange.contentLength === 0) return null
    const tooLong = checkLength(exchange)
    if (tooLong !== null) return tooLong
    exchange.downstream.watch()
    if (isCovered === null || !isCovered(exchange)) {
      exchange.upload = new ClientUpload(exchange, rules)
      return null
    }
    new WholeBody(exchange, rules, resume)
    exchange.downstream.continueBody()
    return LATER
  }
}
