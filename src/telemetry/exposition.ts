// Prometheus text (exposition format 0.0.4): families of series, in the order in which they are added. Runs per scrape,
// in the primary. Knows no metric.

type Labels = Readonly<Record<string, string | number>>

/** A label's value escapes these three characters and no others. */
function labelValue(value: string | number): string {
  return String(value).replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

export class Exposition {
  private text = ''
  private name = ''
  private seen = new Set<string>()

  family(name: string, type: 'counter' | 'gauge' | 'histogram' | 'summary', help: string): void {
    this.name = name
    this.seen = new Set()
    this.text += `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`
  }

  /**
   * Skips a series that was already written: duplicates make the whole scrape invalid (an origin listed twice in a
   * service).
   */
  sample(value: number, labels: Labels = {}, suffix = ''): void {
    const pairs = Object.entries(labels).map(([name, of]) => `${name}="${labelValue(of)}"`)
    const series = this.name + suffix + (pairs.length > 0 ? `{${pairs.join(',')}}` : '')
    if (this.seen.has(series)) return
    this.seen.add(series)
    this.text += `${series} ${value}\n`
  }

  toString(): string {
    return this.text
  }
}
