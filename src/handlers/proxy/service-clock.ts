// How much of an exchange's time is the service's. It stops while the gateway waits for the client: an upload that is
// not complete and that the service would take more of, or a response that the client does not read. Deadlines, the
// breaker and the log go by this clock. Runs per request.

export class ServiceClock {
  private readonly startUs: number
  private spentUs = 0
  private sinceUs: number
  private running = true

  /** It runs from here on. All times are microseconds on the segment's clock. */
  constructor(nowUs: number) {
    this.startUs = nowUs
    this.sinceUs = nowUs
  }

  get isWaitingForClient(): boolean {
    return !this.running
  }

  waitForClient(nowUs: number): void {
    if (!this.running) return
    this.running = false
    this.spentUs += nowUs - this.sinceUs
  }

  waitForService(nowUs: number): void {
    if (this.running) return
    this.running = true
    this.sinceUs = nowUs
  }

  /** Time that was the service's. */
  spent(nowUs: number): number {
    return this.running ? this.spentUs + nowUs - this.sinceUs : this.spentUs
  }

  /** Time that was the client's. */
  waited(nowUs: number): number {
    return nowUs - this.startUs - this.spent(nowUs)
  }
}
