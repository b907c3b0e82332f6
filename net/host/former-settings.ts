/** What kernel settings were before we changed them, kept as long as the change: until a reboot, or until they are set back. */
import fs from 'node:fs';
import path from 'node:path';
import { readSysctl, writeSysctl } from './sysctl.ts';

type Settings = Readonly<Record<string, { readonly was: string; readonly set: string }>>;

export class FormerSettings {
  readonly #file: string;

  /** `runDir` is lost at a reboot, as the settings are. */
  constructor(runDir: string) {
    this.#file = path.join(runDir, 'former-settings.json');
  }

  /** Sets a setting of the namespace this thread is in, and remembers what it was the first time. */
  change(name: string, value: string): void {
    const known = this.#read();
    const was = known[name]?.was ?? readSysctl(name);
    if (was !== undefined && (known[name]?.set !== value || known[name].was !== was)) {
      this.#write({ ...known, [name]: { was, set: value } });
    }
    writeSysctl(name, value);
  }

  /** Sets back what still is as we set it; others' newer wishes stay. What was set back, in words. */
  restore(): string[] {
    const restored: string[] = [];
    for (const [name, { was, set }] of Object.entries(this.#read())) {
      if (was === set || readSysctl(name) !== set) continue;
      writeSysctl(name, was);
      restored.push(`${name} is ${was} again`);
    }
    fs.rmSync(this.#file, { force: true });
    return restored;
  }

  #read(): Settings {
    try {
      return JSON.parse(fs.readFileSync(this.#file, 'utf8')) as Settings;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
      throw error;
    }
  }

  #write(settings: Settings): void {
    const next = `${this.#file}.new`;
    fs.writeFileSync(next, JSON.stringify(settings), { mode: 0o600 });
    fs.renameSync(next, this.#file);
  }
}
