/** `gantry autoscale status`: what autoscaled services do, beside what is aimed at. */
import type { ScalingMeasure, ServiceScaling } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, span, table } from './words.ts';

export function status(options: CommonOptions, service = ''): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.scaling, { service });
    if (session.json) session.printJson(response);
    else if (response.services.length === 0) session.print('No service is autoscaled: give one x-autoscale.');
    else {
      const heads = ['SERVICE', 'TASKS', 'BOUNDS', 'NOW', 'WHY'];
      session.print(table(heads, response.services.map(row), session.colours.bold));
    }
    return 0;
  });
}

function row(one: ServiceScaling): string[] {
  const { name, ready, replicas, min, max, cron, why, atMs } = one;
  const bounds = `${min}-${max}${cron === '' ? '' : ` (${cron})`}`;
  const since = atMs === 0 ? '' : `, ${ago(atMs, systemClock.now())}`;
  const now = [...one.measures.map(measureWords), ...idleWords(one)].join(', ');
  return [name, `${ready}/${replicas}`, bounds, now, `${why}${since}`];
}

function measureWords({ name, now, target }: ScalingMeasure): string {
  const unit = name === 'requests' ? '/s' : ' %';
  const words = (value: number) => `${Math.round(value * 10) / 10}${unit}`;
  return `${name} ${now === undefined ? 'not known' : words(now)} of ${words(target)}`;
}

function idleWords({ idleMs, idleForMs, replicas }: ServiceScaling): string[] {
  if (idleMs === 0) return [];
  if (replicas === 0) return ['waits for a request'];
  return [`idle ${span(idleForMs)} of ${span(idleMs)}`];
}
