/** The thin layer over nats that both halves use: one connection that dials for ever, and its errors as Faults. */
import { connect, ErrorCode, Events, type NatsConnection, NatsError, type TlsOptions } from 'nats';
import { describe, Fault } from './kernel/errors.ts';

export interface NatsParts {
  /** tls://HOST:PORT, several by commas; nats:// is plain TCP, for where somebody asked for that. */
  readonly url: string;
  /** Shown by the server's monitoring. */
  readonly name: string;
  /** Files are read again at each dial, so that a renewed certificate is taken up; PEM texts serve for good. */
  /** Where answers are sent to; `_INBOX` unless told. */
  readonly inboxPrefix?: string;
  readonly tls?: Pick<TlsOptions, 'caFile' | 'certFile' | 'keyFile' | 'ca' | 'cert' | 'key'>;
}

export interface Nats {
  /** The connection while it stands; Fault `unavailable` while it does not. */
  connection(): NatsConnection;
  readonly connected: boolean;
  /** Resolves when it stands for the first time, or rejects with the signal's reason. */
  ready(signal?: AbortSignal): Promise<void>;
  /** Calls `listener` each time it stands, now where it does: NATS may have lost all it had in between. */
  onConnect(listener: (connection: NatsConnection) => void): void;
  close(): Promise<void>;
}

/** Dials in the background, and again whenever the connection breaks, until closed. Fault `invalid` for an unusable URL. */
export function openNats(parts: NatsParts): Nats {
  const servers = parts.url.split(',').map((url) => url.trim().replace(/^[a-z]+:\/\//, ''));
  if (servers.some((server) => !/^.+:\d+$/.test(server)))
    throw new Fault('invalid', `NATS at "${parts.url}": write tls://HOST:PORT`);
  let current: NatsConnection | undefined;
  let connected = false;
  let closed = false;
  const listeners = new Set<(connection: NatsConnection) => void>();
  const stands = (connection: NatsConnection) => {
    connected = true;
    for (const listener of listeners) listener(connection);
  };
  const dialled = connect({
    servers,
    name: parts.name,
    ...(parts.inboxPrefix && { inboxPrefix: parts.inboxPrefix }),
    ...(parts.url.startsWith('tls:') && { tls: parts.tls ?? {} }),
    waitOnFirstConnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    reconnectJitter: 100,
    reconnectJitterTLS: 100,
    timeout: 5_000,
    pingInterval: 2_000,
    maxPingOut: 2,
    noAsyncTraces: true,
  }).then(async (connection) => {
    if (closed) return void (await connection.close());
    current = connection;
    stands(connection);
    void (async () => {
      for await (const { type } of connection.status()) {
        if (type === Events.Disconnect) connected = false;
        if (type === Events.Reconnect) stands(connection);
      }
      connected = false;
    })();
  });
  dialled.catch(() => {});
  return {
    get connected() {
      return connected;
    },
    connection() {
      if (current && connected) return current;
      throw new Fault('unavailable', `NATS at ${parts.url} is not reached`, {
        remedy: 'check that nats-server runs and that this host can reach it',
      });
    },
    ready(signal) {
      if (!signal) return dialled;
      return new Promise((resolve, reject) => {
        signal.throwIfAborted();
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        dialled.then(resolve, reject);
      });
    },
    onConnect(listener) {
      listeners.add(listener);
      if (current && connected) listener(current);
    },
    async close() {
      closed = true;
      connected = false;
      await current?.close();
    },
  };
}

/** The Fault that an error of the NATS client stands for; everything that may pass is `unavailable`. */
export function natsFault(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  const code = error instanceof NatsError ? error.code : '';
  if (code === ErrorCode.MaxPayloadExceeded)
    return new Fault('exhausted', `${what}: more than NATS takes in one message`, { cause: error });
  if (code === ErrorCode.AuthorizationViolation || code === ErrorCode.PermissionsViolation)
    return new Fault('forbidden', `${what}: NATS does not allow it`, { cause: error });
  if (code === ErrorCode.Timeout)
    return new Fault('unavailable', `${what}: NATS did not answer in time`, { cause: error });
  if (code === ErrorCode.NoResponders || code === ErrorCode.JetStream404NoMessages)
    return new Fault('unavailable', `${what}: NATS has no such stream, or no quorum for it`, {
      cause: error,
      remedy: 'a control plane makes it at its start; where most managers are off, start them',
    });
  return new Fault('unavailable', `${what}: ${describe(error)}`, { cause: error });
}
