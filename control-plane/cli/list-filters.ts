/** `--filter KEY=VALUE` of lists, as Docker's client has it: of one key any value will do, of several keys each must. Pure. */
import type { NodeSummary, ServiceSummary } from '#proto/gen/gantry/v1/operator.ts';
import type { Service, Task } from '#proto/gen/gantry/v1/types.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import { taskStates } from '#proto/model/task.ts';

interface Filter<T> {
  /** What it may be; undefined: anything. */
  readonly values?: readonly string[];
  /** Each value must fit, not any: what has several of the kind. */
  readonly all?: true;
  fits(one: T, value: string): boolean;
}

export type Filters<T> = Readonly<Record<string, Filter<T>>>;

/** One `--filter`, taken apart. */
interface Wanted {
  readonly key: string;
  readonly value: string;
}

/** Faults: `invalid`, with the filters, or the values, that there are. `of`: `tasks`. */
export function parseFilters<T>(texts: readonly string[], filters: Filters<T>, of: string): readonly Wanted[] {
  const known = Object.keys(filters).join(', ');
  return texts.map((text) => {
    const cut = text.indexOf('=');
    const [key, value] = cut < 0 ? [text, ''] : [text.slice(0, cut), text.slice(cut + 1)];
    const filter = Object.hasOwn(filters, key) ? filters[key] : undefined;
    if (!filter)
      throw new Fault('invalid', `there is no filter "${key}" of ${of}`, { remedy: `filters of ${of}: ${known}` });
    if (value === '') throw new Fault('invalid', `filter ${key} has no value`, { remedy: `write ${key}=VALUE` });
    if (filter.values && !filter.values.includes(value))
      throw new Fault('invalid', `"${value}" is no ${key} of ${of}`, {
        remedy: `it is one of ${filter.values.join(', ')}`,
      });
    return { key, value };
  });
}

/** Those that pass. */
export function filtered<T>(items: readonly T[], wanted: readonly Wanted[], filters: Filters<T>): T[] {
  const byKey = Map.groupBy(wanted, ({ key }) => key);
  return items.filter((one) =>
    [...byKey].every(([key, values]) => {
      const { all, fits } = filters[key]!;
      return all ? values.every(({ value }) => fits(one, value)) : values.some(({ value }) => fits(one, value));
    }),
  );
}

/** Where it is asked for how tasks are, those of before are meant, too, as with Docker. */
export const historyFilters: ReadonlySet<string> = new Set(['id', 'state', 'desired-state']);

/** `serviceOf`: labels are of the service and of its containers. */
export function taskFilters(serviceOf: (task: Task) => Service | undefined): Filters<Task> {
  return {
    id: { fits: ({ id }, value) => id.startsWith(value) },
    name: { fits: (task, value) => qualifiedName(task.project, taskName(task)).includes(value) },
    node: { fits: ({ nodeId, nodeName }, value) => nodeName === value || nodeId === value },
    state: { values: taskStates, fits: ({ state }, value) => state === value },
    'desired-state': {
      values: ['ready', 'running', 'shutdown', 'remove'],
      fits: ({ wanted }, value) => wanted === value,
    },
    label: { all: true, fits: (task, value) => hasLabel(labelsOf(serviceOf(task)), value) },
  };
}

export const serviceFilters: Filters<ServiceSummary> = {
  id: { fits: ({ service }, value) => service?.id.startsWith(value) ?? false },
  name: {
    fits: ({ service }, value) =>
      qualifiedName(service?.spec?.project ?? '', service?.spec?.name ?? '').includes(value),
  },
  mode: {
    values: ['replicated', 'global', 'replicated-job', 'global-job'],
    fits: ({ service }, value) => service?.spec?.mode === value,
  },
  label: { all: true, fits: ({ service }, value) => hasLabel(labelsOf(service), value) },
};

export const nodeFilters: Filters<NodeSummary> = {
  id: { fits: ({ node }, value) => node?.id.startsWith(value) ?? false },
  name: { fits: ({ node }, value) => node?.name.includes(value) ?? false },
  state: { values: ['ready', 'down', 'unknown'], fits: ({ node }, value) => node?.state === value },
  availability: { values: ['active', 'pause', 'drain'], fits: ({ node }, value) => node?.availability === value },
  label: { all: true, fits: ({ node }, value) => hasLabel(node?.labels ?? {}, value) },
};

function labelsOf(service: Service | undefined): Readonly<Record<string, string>> {
  return { ...service?.spec?.template?.container?.labels, ...service?.spec?.labels };
}

/** `NAME`, or `NAME=VALUE`. */
function hasLabel(labels: Readonly<Record<string, string>>, text: string): boolean {
  const cut = text.indexOf('=');
  return cut < 0 ? Object.hasOwn(labels, text) : labels[text.slice(0, cut)] === text.slice(cut + 1);
}
