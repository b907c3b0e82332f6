/** Exits with 0 when node_modules is what package-lock.json says; runs on whatever Node the machine has. */
const { existsSync, readFileSync } = require('node:fs');

const installedFile = 'node_modules/.package-lock.json';
const packagesOf = (file) => JSON.parse(readFileSync(file, 'utf8')).packages;

function isInstalled() {
  if (!existsSync(installedFile)) return false;
  const installed = packagesOf(installedFile);
  return Object.entries(packagesOf('package-lock.json')).every(
    ([path, wanted]) =>
      path === '' || (installed[path] ? installed[path].version === wanted.version : wanted.optional === true),
  );
}

process.exit(isInstalled() ? 0 : 1);
