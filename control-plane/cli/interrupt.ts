/** Following ends with Ctrl-C, and that is no failure. */
export async function untilInterrupt(stream: { cancel(): void }, follow: () => Promise<void>): Promise<number> {
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
    stream.cancel();
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    await follow();
  } catch (error) {
    if (!interrupted) throw error;
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
  return 0;
}
