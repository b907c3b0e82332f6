/** containerd's content store: blobs by digest, written so that a broken download goes on where it stopped. */
import { once } from 'node:events';
import {
  ContentService,
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponse,
} from '#proto/gen/containerd/content.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { type Containerd, containerdFault } from './containerd-client.ts';
import { type Descriptor, digestOf, limits } from './oci.ts';

export interface BlobWrite {
  readonly descriptor: Pick<Descriptor, 'digest' | 'size'>;
  readonly labels: Readonly<Record<string, string>>;
  readonly lease: string;
  /** The bytes from `offset` on. */
  readonly read: (offset: number) => AsyncIterable<Buffer>;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: (count: number) => void;
}

const writeBytes = 256 * 1024;

export class ContentStore {
  readonly #containerd: Containerd;
  readonly #where: string;

  constructor(containerd: Containerd, where: string) {
    this.#containerd = containerd;
    this.#where = where;
  }

  /** True where the blob is there, whole. */
  async has(digest: string): Promise<boolean> {
    return (await this.#info(digest)) !== undefined;
  }

  async #info(digest: string): Promise<{ size: number } | undefined> {
    try {
      return (await this.#containerd.call(ContentService.info, { digest })).info;
    } catch (error) {
      if (isFault(error, 'not-found')) return undefined;
      throw error;
    }
  }

  /** A small blob (a manifest, a config), whole and checked; undefined where it is not there. */
  async document(digest: string): Promise<Buffer | undefined> {
    const info = await this.#info(digest);
    if (!info) return undefined;
    if (info.size > limits.documentBytes)
      throw new Fault('corrupt', `${digest} is ${info.size} bytes, too long for a document`);
    const chunks: Buffer[] = [];
    for await (const part of this.#containerd.stream(ContentService.read, { digest, offset: 0, size: 0 }))
      chunks.push(part.data);
    const bytes = Buffer.concat(chunks);
    if (digestOf(bytes) !== digest)
      throw new Fault('corrupt', `${digest} in containerd's content store has other bytes`, {
        remedy: 'remove it with: ctr -n gantry content rm DIGEST',
      });
    return bytes;
  }

  /** Adds labels (an empty value removes one) to a blob that is there. */
  async label(digest: string, labels: Readonly<Record<string, string>>, lease: string): Promise<void> {
    if (Object.keys(labels).length === 0) return; // An empty mask would replace all of them.
    const updateMask = Object.keys(labels).map((key) => `labels.${key}`);
    const info = { digest, size: 0, createdAt: undefined, updatedAt: undefined, labels: { ...labels } };
    await this.#containerd.call(ContentService.update, { info, updateMask }, { lease });
  }

  /** Writes a blob, or where it is there only takes it into the lease; containerd checks the digest. Fault `corrupt`: the bytes are others; nothing is kept of them. */
  async write(write: BlobWrite): Promise<void> {
    const { digest } = write.descriptor;
    const ref = `gantry-${digest}`;
    try {
      await this.#writeOnce(ref, write);
    } catch (error) {
      if (isFault(error, 'exists')) return this.label(digest, write.labels, write.lease);
      if (isFault(error, 'precondition', 'corrupt', 'invalid')) {
        await this.#abort(ref);
        throw new Fault('corrupt', `blob ${digest}: what arrived has another digest`, {
          cause: error,
          remedy: 'push the image again',
        });
      }
      throw error;
    }
  }

  async #abort(ref: string): Promise<void> {
    await this.#containerd.call(ContentService.abort, { ref }).catch(() => {});
  }

  async #writeOnce(ref: string, { descriptor, labels, lease, read, signal, onBytes }: BlobWrite): Promise<void> {
    const writer = new Writer(this.#containerd, lease, this.#where);
    const base = { ref, total: descriptor.size, expected: descriptor.digest, labels: {}, data: Buffer.alloc(0) };
    try {
      let offset = (await writer.ask({ ...base, action: WriteAction.STAT, offset: 0 })).offset;
      onBytes?.(offset);
      let pending: Buffer[] = [];
      let pendingBytes = 0;
      const flush = async () => {
        const data = pending.length === 1 ? pending[0]! : Buffer.concat(pending);
        await writer.send({ ...base, action: WriteAction.WRITE, offset, data });
        offset += data.length;
        pending = [];
        pendingBytes = 0;
      };
      for await (const chunk of read(offset)) {
        signal?.throwIfAborted();
        pending.push(chunk);
        pendingBytes += chunk.length;
        onBytes?.(chunk.length);
        if (pendingBytes >= writeBytes) await flush();
      }
      if (pendingBytes > 0) await flush();
      await writer.commit({ ...base, action: WriteAction.COMMIT, offset, labels: { ...labels } });
    } finally {
      writer.close();
    }
  }
}

/** One write stream: requests out, answers read as they come, its first error kept for whoever asks next. */
class Writer {
  readonly #stream: ReturnType<Containerd['content']['write']>;
  readonly #answers: WriteContentResponse[] = [];
  #failure: Fault | undefined;
  #wake = () => {};

  constructor(containerd: Containerd, lease: string, where: string) {
    this.#stream = containerd.content.write(containerd.metadata(lease));
    this.#stream.on('data', (answer: WriteContentResponse) => {
      this.#answers.push(answer);
      this.#wake();
    });
    this.#stream.on('error', (error) => {
      this.#failure ??= containerdFault(error, where);
      this.#wake();
      this.#stream.emit('drain');
    });
    this.#stream.on('end', () => {
      this.#failure ??= new Fault('unavailable', 'containerd ended a write');
      this.#wake();
    });
  }

  /** Sends a request and waits for the answer to it. */
  async ask(request: WriteContentRequest): Promise<WriteContentResponse> {
    this.#stream.write(request);
    return this.#answerTo(request.action);
  }

  async send(request: WriteContentRequest): Promise<void> {
    if (this.#failure) throw this.#failure;
    this.#answers.length = 0;
    if (!this.#stream.write(request)) await once(this.#stream, 'drain');
    if (this.#failure) throw this.#failure;
  }

  async commit(request: WriteContentRequest): Promise<void> {
    this.#stream.write(request);
    await this.#answerTo(WriteAction.COMMIT);
  }

  async #answerTo(action: WriteAction): Promise<WriteContentResponse> {
    for (;;) {
      for (let answer = this.#answers.shift(); answer; answer = this.#answers.shift())
        if (answer.action === action) return answer;
      if (this.#failure) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#stream.end();
    this.#stream.cancel();
  }
}
