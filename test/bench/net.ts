/** The network beside what an operator sets up by hand on the same switch: throughput, round trips, new connections, changes. */
import { backend, endpoint } from '#test/support/endpoint.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';
import type { Figure } from './figure.ts';
import { median } from './measure.ts';
import { changes } from './net-changes.ts';
import { byHand, type HandMade, type Kind, masquerade, Way } from './net-way.ts';

const section = 'net';
const vip = '10.224.0.2';
const units: Readonly<Record<Kind, string>> = { bits: 'Gbit/s', trip: '/s', connect: '/s' };
const words: Readonly<Record<Kind, string>> = { bits: 'throughput', trip: 'round trips', connect: 'new connections' };
/** Short and many, in turns: what else the machine does then meets all alike. Bytes for throughput, else ms. */
const windows: Readonly<Record<Kind, number>> = { bits: 2 ** 28, trip: 30, connect: 30 };
const rounds: Readonly<Record<Kind, number>> = { bits: 30, trip: 200, connect: 200 };

/** What is measured in turns: by hand, by Gantry's route, and by Gantry through a VIP. */
interface Contender {
  readonly name: string;
  readonly way: Way;
  readonly address: string;
  /** Another floor, to tell what part of a difference is not ours: nothing was promised of it. */
  readonly isFloor?: true;
}

/** Figures of each contender beside the first; a ratio is the median of those of neighbouring windows. */
async function compare(
  title: string,
  kind: Kind,
  contenders: readonly [Contender, ...Contender[]],
  least: number,
): Promise<Figure[]> {
  const samples = contenders.map((): number[] => []);
  const take = async (index: number) => {
    const { way, address } = contenders[index] as Contender;
    const value = await way.measure(kind, address, windows[kind]);
    return kind === 'bits' ? value / 1e9 : value;
  };
  for (let index = 0; index < contenders.length; index++) await take(index);
  for (let round = 0; round < rounds[kind]; round++) {
    // Whoever comes first in one round comes last in the next: neither has the warmer caches.
    const order = contenders.map((_, index) => (round % 2 === 0 ? index : contenders.length - 1 - index));
    for (const index of order) samples[index]?.push(await take(index));
  }
  const [floor, ...own] = samples as [number[], ...number[][]];
  return own.flatMap((values, index): Figure[] => {
    const contender = contenders[index + 1] as Contender;
    const name = `${title}: ${words[kind]} ${contender.name}`;
    const ratios = values.map((value, round) => value / (floor[round] as number));
    return [
      {
        section,
        name,
        value: median(values),
        unit: units[kind],
        beside: { what: contenders[0].name, value: median(floor) },
        samples: values,
      },
      {
        section,
        name: `${name}, median of ratios`,
        value: median(ratios),
        unit: 'x',
        ...(contender.isFloor ? {} : { target: { bound: 'at least', value: least } as const }),
        samples: ratios,
      },
    ];
  });
}

/** Hosts 1 and 2 are Gantry's, 3 and 4 somebody's; on 5 and 6, connections are tracked, as wherever containers get out. */
async function acrossHosts(title: string, tunnel: boolean, least: Readonly<Record<Kind, number>>): Promise<Figure[]> {
  const lab = await NetLab.start(6);
  const ways: Way[] = [];
  const handMade: HandMade[] = [];
  try {
    const own = [lab.host(1), lab.host(2)] as const;
    const settings = { encapsulation: tunnel ? 'always' : 'never' } as const;
    const apply = (host: LabHost, over: object = {}) => host.apply(own, { ...settings, ...over });
    for (const host of own) await apply(host);
    const client = await own[0].attach(2);
    const server = await own[1].attach(2);
    const web = endpoint('web', { vip, backends: [backend(server.address)] });
    await apply(own[0], { endpoints: [web], attachments: [client] });
    await apply(own[1], { endpoints: [web], attachments: [server] });
    const hand = await byHand(lab, [lab.host(3), lab.host(4)], tunnel);
    handMade.push(hand);
    const masquerading = [lab.host(5), lab.host(6)] as const;
    const translated = await byHand(lab, masquerading, tunnel);
    handMade.push(translated);
    for (const host of masquerading) await masquerade(host);
    const byGantry = await new Way(client.netns, server.netns).listening();
    const manual = await new Way(hand.client, hand.server).listening();
    const tracked = await new Way(translated.client, translated.server).listening();
    ways.push(byGantry, manual, tracked);
    const contenders: [Contender, ...Contender[]] = [
      { name: 'by hand', way: manual, address: hand.address },
      {
        name: 'by hand, where tasks get out by masquerading',
        way: tracked,
        address: translated.address,
        isFloor: true,
      },
      { name: 'by Gantry', way: byGantry, address: server.address },
      { name: 'by Gantry and a VIP', way: byGantry, address: vip },
    ];
    const figures: Figure[] = [];
    for (const kind of ['bits', 'trip', 'connect'] as const) {
      figures.push(...(await compare(title, kind, contenders, least[kind])));
    }
    return figures;
  } finally {
    for (const way of ways) way.close();
    for (const hand of handMade) await hand.close();
    await lab.stop();
  }
}

/** All that is promised of the network; no cluster is needed, but hosts with the production network in them. */
export async function network(): Promise<Figure[]> {
  return [
    ...(await acrossHosts('by route', false, { bits: 0.97, trip: 0.97, connect: 0.9 })),
    ...(await acrossHosts('by VXLAN', true, { bits: 1, trip: 0.97, connect: 0.9 })),
    ...(await changes()),
  ];
}
