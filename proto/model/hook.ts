/** A command run in a container of a service at a moment of its life. Field contracts: proto/gantry/v1/types.proto. */
export interface Hook {
  readonly command: readonly string[];
  /** Empty: as the container's own. */
  readonly user: string;
  readonly privileged: boolean;
  readonly workingDir: string;
  /** KEY=VALUE, over the container's. */
  readonly env: readonly string[];
}
