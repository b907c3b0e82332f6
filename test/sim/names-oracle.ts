/** What every name must mean to everybody who may ask, told from what the store holds alone; and what each host's name server says. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { answer } from '#net/dns/answer.ts';
import { dnsView } from '#net/dns/view.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import type { Service } from '#proto/model/service.ts';
import { isServing, occupiesNode, type Task } from '#proto/model/task.ts';
import type { Host } from './host.ts';

/** `undefined` networks: the node itself, which sees all. */
interface Asker {
  readonly address: string;
  readonly networks: readonly string[] | undefined;
}

/** In what the host's answers differ from what they must be; empty: in nothing. */
export function wrongNames(truth: Snapshot, host: Host): string {
  const wanted = host.boot?.network.wanted;
  if (!wanted) return `${host.name} answers nobody`;
  const view = dnsView(wanted);
  const tasks = [...truth.tasksOnNode(host.id)].filter((task) => occupiesNode(task) && task.address !== '');
  const askers: Asker[] = tasks.map((task) => ({ address: task.address, networks: networksOf(truth, task) }));
  askers.push({ address: gatewayOf(wanted.subnet), networks: undefined });
  for (const service of truth.all('service')) {
    const name = `${service.spec.name}.${service.spec.project}.${wanted.domain}`;
    for (const asker of askers) {
      for (const [asked, should] of Object.entries({
        [name]: meant(truth, service, asker),
        [`tasks.${name}`]: meantTasks(truth, service, asker),
      })) {
        const said = answer(view, { name: asked, type: 'A' }, asker.address, 0);
        const is =
          said.kind === 'records' ? said.records.map((one) => ('address' in one ? one.address : '')) : said.kind;
        const [one, other] = [is, should].map((list) => (typeof list === 'string' ? list : [...list].sort().join(' ')));
        if (one !== other) return `${host.name} tells ${asker.address} that ${asked} is ${one}, not ${other}`;
      }
    }
  }
  return '';
}

type Meaning = readonly string[] | 'unknown';

function meant(truth: Snapshot, service: Service, asker: Asker): Meaning {
  if (!shared(service, asker)) return 'unknown';
  const hasVip = service.spec.endpointMode === 'vip' && service.vip !== '';
  return hasVip ? [service.vip] : meantTasks(truth, service, asker);
}

function meantTasks(truth: Snapshot, service: Service, asker: Asker): Meaning {
  const networks = shared(service, asker);
  if (!networks) return 'unknown';
  const own =
    asker.networks && networks.find((name) => (truth.get('network', name)?.value.spec.subnets.length ?? 0) > 0);
  const serving = [...truth.tasksOfService(service.id)].filter(isServing);
  return serving.map((task) => task.addresses.find(({ network }) => network === own)?.address ?? task.address);
}

/** The networks by which the asker reaches it, in the asker's order; undefined: by none. */
function shared({ spec }: Service, { networks }: Asker): readonly string[] | undefined {
  if (!networks) return [];
  const common = networks.filter((name) => spec.template.networks.some(({ network }) => network === name));
  return common.length > 0 ? common : undefined;
}

function networksOf(truth: Snapshot, task: Task): readonly string[] {
  const template = truth.revisionOf(task.serviceId, task.revision)?.template;
  return template?.networks.map(({ network }) => network) ?? [];
}
