/** What must be true of other services before a service's tasks start. */

export const dependencyConditions = ['service_started', 'service_healthy', 'service_completed_successfully'] as const;
export type DependencyCondition = (typeof dependencyConditions)[number];

export interface Dependency {
  /** Of the same project. */
  readonly service: string;
  readonly condition: DependencyCondition;
  /** When an operation renews the other service's tasks, those of this one are renewed too. */
  readonly restart: boolean;
  /** Without it, a service that is missing or has failed is no reason to wait. */
  readonly required: boolean;
}
