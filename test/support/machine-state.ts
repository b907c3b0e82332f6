/** What of the machine a sandbox could leave behind, as lines that can be compared before and after. */
import { readdirSync, readFileSync } from 'node:fs';
import { filesBelow } from './source-tree.ts';

/**
 * What of this machine carries one of the marks: mounts, named network namespaces, processes and cgroups; and links named as a
 * sandbox names them. Others work beside us, so the rest of the machine may change at any time.
 */
export function machineState(marks: readonly string[]): string[] {
  const marked = (text: string) => marks.some((mark) => text.includes(mark));
  return [
    ...mounts()
      .filter(marked)
      .map((line) => `mount ${line}`),
    ...readdirSync('/sys/class/net')
      .filter((name) => /^(switch0|world|[hm][0-9]+|gantry0|gt[a-z0-9]+)$/.test(name))
      .map((name) => `link ${name}`),
    ...namedNamespaces()
      .filter(marked)
      .map((name) => `netns ${name}`),
    ...processes()
      .filter(({ cgroup, command }) => marked(cgroup) || marked(command))
      .map(({ pid, command }) => `process ${pid} ${command}`),
    ...cgroupDirs()
      .filter(marked)
      .map((dir) => `cgroup ${dir}`),
  ].sort();
}

/** Whole lines: an overlay names its directories in its options. */
function mounts(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
}

function namedNamespaces(): string[] {
  try {
    return readdirSync('/run/netns');
  } catch {
    return [];
  }
}

/** Living processes; one that only waits to be reaped holds nothing. */
function processes(): { pid: number; command: string; cgroup: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name) && name !== String(process.pid))
    .flatMap((name) => {
      try {
        if (/\) Z /.test(readFileSync(`/proc/${name}/stat`, 'utf8'))) return [];
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return [{ pid: Number(name), command, cgroup: readFileSync(`/proc/${name}/cgroup`, 'utf8') }];
      } catch {
        return []; // It ended while we looked.
      }
    });
}

function cgroupDirs(): string[] {
  const trees = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(' ')[4] ?? '');
  return trees.flatMap((tree) => {
    try {
      return filesBelow(`${tree}/gantry-sandbox`);
    } catch {
      return []; // No sandbox at all.
    }
  });
}
