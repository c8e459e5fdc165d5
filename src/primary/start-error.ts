// Why the gateway does not start: what a person is told, without a stack. In the primary alone.

/** A start that cannot be: the message says why and what to do. */
export class StartError extends Error {}
