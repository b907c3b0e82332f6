/** The cluster's certificate authority as the store keeps it: what is trusted, and how far a change of it has come. */

/** A root certificate. */
export interface Root {
  /** PEM */
  readonly certificate: string;
  /** base64url SHA-256 of its DER: what join tokens pin. */
  readonly hash: string;
}

/** How far a manager's replica is. */
export interface ReplicaTrust {
  /** Hash of the root that its own certificates, etcd's and NATS' are of. */
  readonly issuer: string;
  /** Hashes of what it trusts, and has NATS trust. */
  readonly trusts: readonly string[];
  /** The same for its etcd since it was last started by this replica; undefined: that is not this replica's to do. */
  readonly etcd?: readonly string[];
}

/** A certificate of an operator, by what is known of it here. */
export interface OperatorTrust {
  readonly issuer: string;
  readonly expiresAtMs: number;
}

/**
 *   settled ──(rotate: a new root, signed by the one before)──▶ renewing ──(all have certificates of it)──▶ dropping ──(nobody
 *      ▲                                                                                                        │ trusts the old)
 *      └────────────────────────────────────────────────────────────────────────────────────────────────────────┘
 */
export interface AuthorityState {
  readonly phase: 'settled' | 'renewing' | 'dropping';
  /** What is trusted, the newest first: that one issues. */
  readonly roots: readonly Root[];
  /** Of the first root, PKCS#8 PEM; sealed at rest. */
  readonly key: string;
  /** The first root's certificate by the one before, PEM; '' where there was none. */
  readonly cross: string;
  /** The last rotation; 0: none yet. */
  readonly rotatedAtMs: number;
  /** Replicas by name. */
  readonly replicas: Readonly<Record<string, ReplicaTrust>>;
  /** Operators on other machines by name. */
  readonly operators: Readonly<Record<string, OperatorTrust>>;
}

/** PEM of all that is trusted. */
export function trustOf({ roots }: AuthorityState): string {
  return roots.map(({ certificate }) => certificate).join('');
}
