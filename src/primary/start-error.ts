// The error for a gateway that cannot start: a person reads its message, without a stack. Primary only.

/** The message says why the gateway does not start, and what to do. */
export class StartError extends Error {}
