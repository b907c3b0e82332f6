/** The plots that stories are told by. A seed means another story in each; what it means in one changes with what is in that one. */
import { autoscaling } from './chapters/autoscale.ts';
import { documents } from './chapters/documents.ts';
import { events } from './chapters/events.ts';
import { history } from './chapters/history.ts';
import { images } from './chapters/images.ts';
import { isolation } from './chapters/isolation.ts';
import { jobs } from './chapters/jobs.ts';
import { leases } from './chapters/leases.ts';
import { networks } from './chapters/networks.ts';
import { overtaking } from './chapters/overtaking.ts';
import { priorities } from './chapters/priorities.ts';
import { removals } from './chapters/removals.ts';
import { services } from './chapters/services.ts';
import { volumes } from './chapters/volumes.ts';
import { watchdogs } from './chapters/watchdogs.ts';
import type { Plot } from './plot.ts';

/** Services, judged by silence alone: as where firewalls keep probes away. */
export const first: Plot = { name: 'first', watched: false, odds: { wishes: 2, of: 5 }, chapters: [services] };

/** Everything there is. */
export const whole: Plot = {
  name: 'whole',
  watched: true,
  odds: { wishes: 1, of: 2 },
  chapters: [
    services,
    watchdogs,
    jobs,
    autoscaling,
    isolation,
    priorities,
    networks,
    volumes,
    documents,
    leases,
    overtaking,
    removals,
    history,
    events,
    images,
  ],
};

/** Leaders that come and go while services are scaled: the more of what is rare in the whole. */
export const turnover: Plot = {
  name: 'turnover',
  watched: true,
  odds: { wishes: 1, of: 3 },
  chapters: [
    {
      ...services,
      wishes: (services.wishes ?? []).filter(({ name }) => ['scale', 'update', 'restart'].includes(name)),
      faults: [...(services.faults ?? []), ...(watchdogs.faults ?? [])].filter(({ name }) => /leader/.test(name)),
    },
  ],
};

/** Singletons alone: the more of what leases are about. */
export const singletons: Plot = { name: 'singletons', watched: true, odds: { wishes: 1, of: 4 }, chapters: [leases] };

/** Hosts and leaders that are cut off, stand still and come back: the more of what verdicts over nodes are about. */
const silences =
  /power off$|replica (stopped|killed)|leader killed|connections reset|slow line|agent (killed|stopped)$/;
export const verdicts: Plot = {
  name: 'verdicts',
  watched: true,
  odds: { wishes: 1, of: 8 },
  chapters: [
    {
      ...services,
      wishes: (services.wishes ?? []).filter(({ name }) => name === 'scale'),
      faults: (services.faults ?? []).filter(({ name }) => silences.test(name)),
    },
    watchdogs,
  ],
};

export const plots: readonly Plot[] = [first, whole, turnover, singletons, verdicts];
