/** Several managers as one to talk to: whichever answers first is asked, and another one when it stops answering. */
import * as grpc from '@grpc/grpc-js';
import { OperatorClient } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { channelOptions } from '#proto/rpc.ts';

/** Where a control plane may be reached. */
export interface Target {
  /** As grpc-js takes it: `unix:PATH` or HOST:PORT. */
  readonly address: string;
  readonly credentials: grpc.ChannelCredentials;
}

/** The next one is tried as well when the one before has not answered by then. */
const headStartMs = 250;
/** Longest wait for any of them. */
const patienceMs = 5_000;

/** A client of the first of `targets` that takes a connection; where none does, one of the first, whose calls then tell why. */
export async function firstToAnswer(targets: readonly Target[]): Promise<OperatorClient> {
  const clients = targets.map(({ address, credentials }) => new OperatorClient(address, credentials, channelOptions));
  if (clients.length === 1) return clients[0]!;
  const deadline = systemClock.now() + patienceMs;
  const stop = new AbortController();
  let failed = Promise.resolve();
  const attempts = clients.map((client, index) => {
    const turn = index === 0 ? failed : Promise.race([failed, waits(index * headStartMs, stop.signal)]);
    const attempt = turn.then(() => connected(client, deadline, stop.signal));
    failed = attempt.then(
      () => {},
      () => {},
    );
    return attempt.then(() => client);
  });
  const chosen = await Promise.any(attempts).catch(() => clients[0]!);
  stop.abort();
  for (const client of clients) if (client !== chosen) client.close();
  return chosen;
}

/** Rejects where nobody takes the connection. */
function connected(client: grpc.Client, deadline: number, signal: AbortSignal): Promise<void> {
  const channel = client.getChannel();
  return new Promise((resolve, reject) => {
    const look = () => {
      if (signal.aborted) return reject(signal.reason);
      const state = channel.getConnectivityState(true);
      if (state === grpc.connectivityState.READY) return resolve();
      if (state === grpc.connectivityState.TRANSIENT_FAILURE || state === grpc.connectivityState.SHUTDOWN)
        return reject(new Fault('unavailable', 'no control plane takes a connection there'));
      channel.watchConnectivityState(state, deadline, (error) => (error ? reject(error) : look()));
    };
    look();
  });
}

function waits(ms: number, signal: AbortSignal): Promise<void> {
  return systemClock.sleep(ms, signal).catch(() => {});
}
