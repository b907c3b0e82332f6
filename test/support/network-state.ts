/** Everything that a network namespace holds, ours and others' apart, in lines that can be compared. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

export interface NetworkState {
  /** What bears Gantry's marks: tables, links and addresses on them, routes and rules. */
  readonly own: readonly string[];
  readonly foreign: readonly string[];
}

/** The state of the namespace at `netns`; without what counts or times. */
export async function networkState(netns: string): Promise<NetworkState> {
  const run = async (...command: string[]) =>
    (await execute('nsenter', [`--net=${netns}`, ...command], { maxBuffer: 1 << 26 })).stdout;
  return statesOf(run);
}

/** As networkState, by whatever runs a command there. */
export async function statesOf(run: (...command: string[]) => Promise<string>): Promise<NetworkState> {
  const own: string[] = [];
  const foreign: string[] = [];
  const add = (what: string, line: string, isOwn: boolean) => (isOwn ? own : foreign).push(`${what} ${line.trim()}`);
  const tables = (await run('nft', '-s', 'list', 'ruleset')).split(/^(?=table )/m).filter((text) => text.trim() !== '');
  for (const table of tables) add('nft', table, /^table (ip6?|inet) gantry(-of-\S+)? /.test(table));
  for (const family of ['-4', '-6']) {
    const routes = await run('ip', family, '-o', 'route', 'show', 'table', 'all');
    for (const line of lines(routes)) {
      const words = line.replace(/ expires \S+| linkdown| dead/g, '');
      add(`route ${family}`, words, isOurs(words) || onOurLink(words));
    }
    for (const line of lines(await run('ip', family, 'rule', 'show'))) {
      add(`rule ${family}`, line, line.includes('proto 71'));
    }
  }
  for (const line of lines(await run('ip', '-o', 'address', 'show'))) {
    const words = line.replace(/^\d+: /, '').replace(/valid_lft.*| tentative/g, '');
    add('address', words, /^(gantry|gt)/.test(words));
  }
  for (const line of lines(await run('ip', '-o', 'link', 'show'))) {
    const words = line.replace(/^\d+: /, '').replace(/<.*$/, '');
    add('link', words, /^(gantry|gt)/.test(words));
  }
  return { own: own.sort(), foreign: foreign.sort() };
}

const lines = (text: string) => text.split('\n').filter((line) => line.trim() !== '');
const isOurs = (route: string) => route.includes('proto 71') && route.includes('metric 71');
/** What the kernel makes for a link of ours. */
const onOurLink = (route: string) => / dev (gantry\S*|gt\S*)/.test(route);
