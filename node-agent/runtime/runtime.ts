/** What runs containers. Implementations: conmon-runtime (conmon and an OCI runtime), fake-runtime (tests, simulator). */

import type { Controls } from '#proto/model/controls.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Resources } from '#proto/model/resources.ts';
import type { ContainerSpec } from '#proto/model/service.ts';

/** A mount as mount(2) takes it. */
export interface RootfsMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** What an image's config says, as far as running needs it (OCI image-spec, config.md). */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly user: string;
  readonly workingDir: string;
  readonly volumes: readonly string[];
  readonly stopSignal: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly exposedPorts: readonly string[];
  readonly healthCheck?:
    | {
        readonly test: readonly string[];
        readonly intervalMs: number;
        readonly timeoutMs: number;
        readonly startPeriodMs: number;
        readonly startIntervalMs: number;
        readonly retries: number;
      }
    | undefined;
}

/** A bind mount into the container that the agent has prepared: a volume, a bind, or a generated file. */
export interface PreparedMount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly propagation: string;
  readonly type: 'bind' | 'tmpfs';
  readonly options: readonly string[];
}

/** Whose network a container has: that of a namespace, its host's, or one of its own with nothing but a loopback. */
export type ContainerNetwork = { readonly path: string } | 'host' | 'none';

/** Everything that creating one container needs; nothing is looked up elsewhere. */
export interface ContainerRequest {
  readonly id: TaskId;
  readonly container: ContainerSpec;
  readonly image: ImageConfig;
  readonly rootfs: readonly RootfsMount[];
  readonly mounts: readonly PreparedMount[];
  readonly hostname: string;
  readonly network: ContainerNetwork;
  /** Of another container, whose processes it sees; its own where absent, unless it has its host's. */
  readonly pidNamespace?: string | undefined;
  readonly limits: Resources;
  readonly controls: Controls;
  /** runc | crun */
  readonly runtime: string;
  /** Where conmon writes the log. */
  readonly logPath: string;
  /** Kept with the container; `list` gives it back. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** All that may change while the process goes on. */
export interface LiveSettings {
  readonly limits: Resources;
  readonly controls: Controls;
}

export interface ContainerState {
  readonly id: TaskId;
  readonly status: 'created' | 'running' | 'exited' | 'lost';
  readonly pid: number;
  /** As last set; absent: an older agent made it. */
  readonly settings?: LiveSettings | undefined;
  readonly exit?: ContainerExit | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ContainerExit {
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly atMs: number;
  /** conmon died first: the exit code is not known. */
  readonly lost: boolean;
}

export interface ExecRequest {
  readonly id: TaskId;
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly user: string;
  /** With all that this host can give, whatever the container may. */
  readonly privileged?: boolean;
  readonly workingDir: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly columns: number;
  readonly rows: number;
}

/** A process in a running container. With a tty, all output is in `stdout`. */
export interface ExecSession {
  readonly stdin: NodeJS.WritableStream | undefined;
  readonly stdout: NodeJS.ReadableStream;
  readonly stderr: NodeJS.ReadableStream | undefined;
  resize(columns: number, rows: number): void;
  signal(signal: string): void;
  /** Resolves when it has ended: its exit code, 128 + n for signal n, 126/127 as a shell would. */
  readonly exit: Promise<number>;
}

export interface ContainerStats {
  readonly cpuSeconds: number;
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
  readonly pids: number;
  readonly networkReceivedBytes: number;
  readonly networkSentBytes: number;
}

/**
 * Every method is safe to repeat: creating what exists, starting what runs, killing or deleting what is gone succeeds.
 * Faults: `not-found`, `invalid` (the runtime refused the spec, in its words), `unsupported`, `exhausted`, `unavailable`.
 */
export interface Runtime {
  /** Mounts the root filesystem, writes the bundle, and creates the container, not yet started. */
  create(request: ContainerRequest): Promise<{ readonly pid: number }>;
  start(id: TaskId): Promise<void>;
  /** `signal` as SIGTERM or 15. */
  kill(id: TaskId, signal: string): Promise<void>;
  /** Ends what still runs, then removes bundle, mount and cgroup; the log file stays. */
  delete(id: TaskId): Promise<void>;
  /** Everything on disk, alive or exited: the truth after a restart. */
  list(): Promise<readonly ContainerState[]>;
  /** Called once for each exit, also for those that happened before it was called and were not yet deleted. */
  onExit(listener: (id: TaskId, exit: ContainerExit) => void): () => void;
  exec(request: ExecRequest): Promise<ExecSession>;
  stats(id: TaskId): Promise<ContainerStats>;
  /** Live, the same process goes on. Fault `exhausted`: more memory is in use than that; nothing else changes then. */
  updateLimits(id: TaskId, settings: LiveSettings): Promise<void>;
  /** Asks conmon to reopen its log file, after the agent renamed it. */
  reopenLog(id: TaskId): Promise<void>;
  /** Versions by component: runc, crun, conmon. */
  versions(): Promise<Readonly<Record<string, string>>>;
  close(): Promise<void>;
}
