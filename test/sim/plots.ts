/** The plots that stories are told by. A seed means another story in each; what it means in one changes with what is in that one. */
import { autoscaling } from './chapters/autoscale.ts';
import { isolation } from './chapters/isolation.ts';
import { jobs } from './chapters/jobs.ts';
import { networks } from './chapters/networks.ts';
import { priorities } from './chapters/priorities.ts';
import { services } from './chapters/services.ts';
import { watchdogs } from './chapters/watchdogs.ts';
import type { Plot } from './plot.ts';

/** Services, judged by silence alone: as where firewalls keep probes away. */
export const first: Plot = { name: 'first', watched: false, odds: { wishes: 2, of: 5 }, chapters: [services] };

/** Everything there is. */
export const whole: Plot = {
  name: 'whole',
  watched: true,
  odds: { wishes: 1, of: 2 },
  chapters: [services, watchdogs, jobs, autoscaling, isolation, priorities, networks],
};

export const plots: readonly Plot[] = [first, whole];
