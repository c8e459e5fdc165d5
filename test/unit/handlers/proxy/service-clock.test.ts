import { describe, expect, it } from 'vitest'
import { ServiceClock } from '../../../../src/handlers/proxy/service-clock.js'

describe('the clock of a service', () => {
  it('runs from the start', () => {
    const clock = new ServiceClock(1000)
    expect([clock.spent(1500), clock.waited(1500), clock.isWaitingForClient]).toEqual([500, 0, false])
  })

  it('stands while the client is waited for, and goes on from there', () => {
    const clock = new ServiceClock(0)
    clock.waitForClient(100)
    expect([clock.spent(5000), clock.waited(5000), clock.isWaitingForClient]).toEqual([100, 4900, true])
    clock.waitForService(5000)
    expect([clock.spent(5050), clock.waited(5050), clock.isWaitingForClient]).toEqual([150, 4900, false])
  })

  it('takes a second word of the same for none', () => {
    const clock = new ServiceClock(0)
    clock.waitForService(10)
    clock.waitForClient(20)
    clock.waitForClient(30)
    clock.waitForService(40)
    clock.waitForService(50)
    expect([clock.spent(60), clock.waited(60)]).toEqual([40, 20])
  })
})
