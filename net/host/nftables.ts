/** Transactions on nftables through libnftables, in process: 0.1-1 ms where a spawned nft takes 12-40. */
import koffi from 'koffi';
import { Fault } from '#proto/kernel/errors.ts';

const jsonOutput = 1 << 4;
const terseOutput = 1 << 11;
const handleOutput = 1 << 3;
/** Commands of more characters than this run on a thread of the pool, so that a rebuild does not hold up the agent. */
const asyncFromLength = 16_384;

function load() {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('libnftables.so.1');
  } catch (error) {
    throw new Fault('precondition', 'libnftables.so.1 is not on this machine', {
      cause: error,
      remedy: 'apt-get install nftables',
    });
  }
  return {
    create: library.func('void *nft_ctx_new(uint32)'),
    free: library.func('void nft_ctx_free(void *)'),
    run: library.func('int nft_run_cmd_from_buffer(void *, const char *)'),
    bufferOutput: library.func('int nft_ctx_buffer_output(void *)'),
    bufferError: library.func('int nft_ctx_buffer_error(void *)'),
    output: library.func('const char *nft_ctx_get_output_buffer(void *)'),
    error: library.func('const char *nft_ctx_get_error_buffer(void *)'),
    setFlags: library.func('void nft_ctx_output_set_flags(void *, uint32)'),
  };
}

/** A handle on the nftables of the namespace it was opened in. Calls are carried out one after the other. */
export class Nftables {
  readonly #library = load();
  readonly #context: unknown;
  #last: Promise<unknown> = Promise.resolve();
  #busy = 0;

  constructor() {
    this.#context = this.#library.create(0);
    if (!this.#context) throw new Fault('internal', 'libnftables gave no context');
    this.#library.bufferOutput(this.#context);
    this.#library.bufferError(this.#context);
  }

  /** Carries out `commands` as one transaction: all or nothing; Fault('invalid') with the kernel's words. */
  async run(commands: string): Promise<void> {
    await this.#queued(0, commands, commands.length > asyncFromLength);
  }

  /**
   * The objects of the JSON that `commands` print. `terse`: without the elements of sets. Not for what prints a table with
   * flags: nft 1.0.6 (Debian 12) gives memory that is not initialised for them.
   */
  async list(commands: string, { terse = false } = {}): Promise<readonly NftObject[]> {
    const text = await this.#queued(jsonOutput | (terse ? terseOutput : 0), commands, !terse);
    return text === '' ? [] : (JSON.parse(text) as { nftables: NftObject[] }).nftables;
  }

  /** What `commands` print, for people, with the handles of rules. `terse`: without the elements of sets. */
  text(commands: string, { terse = false } = {}): Promise<string> {
    return this.#queued(handleOutput | (terse ? terseOutput : 0), commands, false);
  }

  /** As list, at once; only for a handle that nobody else uses. */
  listSync(commands: string): readonly NftObject[] {
    const text = this.#runSync(jsonOutput, commands);
    return text === '' ? [] : (JSON.parse(text) as { nftables: NftObject[] }).nftables;
  }

  async #queued(flags: number, commands: string, onThread: boolean): Promise<string> {
    if (this.#busy === 0 && !onThread) return this.#runSync(flags, commands);
    this.#busy++;
    const turn = this.#last.then(() =>
      onThread ? this.#runOnThread(flags, commands) : this.#runSync(flags, commands),
    );
    this.#last = turn.catch(() => {});
    try {
      return await turn;
    } finally {
      this.#busy--;
    }
  }

  #runSync(flags: number, commands: string): string {
    this.#library.setFlags(this.#context, flags);
    return this.#result(this.#library.run(this.#context, commands), commands);
  }

  #runOnThread(flags: number, commands: string): Promise<string> {
    this.#library.setFlags(this.#context, flags);
    return new Promise((resolve, reject) => {
      this.#library.run.async(this.#context, commands, (error: unknown, status: number) => {
        if (error) return reject(error);
        try {
          resolve(this.#result(status, commands));
        } catch (fault) {
          reject(fault);
        }
      });
    });
  }

  #result(status: number, commands: string): string {
    const output: string = this.#library.output(this.#context) ?? '';
    const error: string = this.#library.error(this.#context) ?? '';
    if (status === 0) return output;
    const words = error.trim().split('\n').slice(0, 3).join(' ').slice(0, 300);
    throw new Fault('invalid', `nftables refused "${commands.trim().slice(0, 80)}": ${words || 'no reason given'}`);
  }

  /** Frees the handle once what was asked is done. */
  async close(): Promise<void> {
    await this.#last;
    this.#library.free(this.#context);
  }

  closeSync(): void {
    this.#library.free(this.#context);
  }
}

/** One object of nft's JSON: a single key says what it is. */
export type NftObject = Readonly<Record<string, NftFields>>;
export interface NftFields {
  readonly name?: string;
  readonly chain?: string;
  readonly elem?: readonly unknown[];
  readonly [field: string]: unknown;
}
