// graphile-worker: `node graphile.mjs drain|pickup|own COUNT`, with PEER_URL, from a folder with node_modules.
// drain: no-op jobs a second with its fastest settings. pickup: ms from the commit of a job to the task's first line, one
// at a time, an idle worker that batches nothing; another process adds the jobs. own: the worker's process adds them.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { promisify } from "node:util";
const load = createRequire(`${process.cwd()}/`);
const { Logger, makeWorkerUtils, run } = load("graphile-worker");
const pg = load("pg");

const [mode, count] = [process.argv[2], Number(process.argv[3])];
const connectionString = process.env.PEER_URL;
const logger = new Logger(() => () => {});
const now = () => process.hrtime.bigint(); // ns, by a clock that all processes of the machine share
const ms = (from, to) => Number(to - from) / 1e6;
const pause = (for_ms) => new Promise((resolve) => setTimeout(resolve, for_ms));

const client = new pg.Client(connectionString);
await client.connect();
const utils = await makeWorkerUtils({ connectionString, logger });
if (mode !== "add") {
  await client.query("DROP SCHEMA IF EXISTS graphile_worker CASCADE");
  await utils.migrate();
}

async function drain() {
  for (let added = 0; added < count; added += 5000) {
    const size = Math.min(5000, count - added);
    await utils.addJobs(Array.from({ length: size }, () => ({ identifier: "nothing", payload: {} })));
  }
  await client.query("VACUUM ANALYZE");
  let done = 0;
  const worker = { connectionString, concurrentJobs: 4, maxPoolSize: 5 };
  const batched = { localQueue: { size: 2000 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
  const began = now();
  await run({ preset: { worker: { ...worker, ...batched } }, logger, taskList: { nothing: async () => void done++ } });
  while (done < count) await pause(5);
  const left = "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs) AS left";
  while ((await client.query(left)).rows[0].left) await pause(5);
  return { per_s: (1000 * count) / ms(began, now()) };
}

const unbatched = { worker: { connectionString, concurrentJobs: 24, maxPoolSize: 25 } };

async function pickup() {
  const began = [];
  const taskList = { look: async () => void began.push(now()) };
  await run({ preset: unbatched, logger, taskList });
  await pause(500);
  const { stdout } = await promisify(execFile)(process.execPath, [process.argv[1], "add", String(count)]);
  return { ms: JSON.parse(stdout).committed.map((at, n) => ms(BigInt(at), began[n])) };
}

async function add() {
  const committed = [];
  for (let n = 0; n < count; n++) {
    await utils.addJob("look", {});
    committed.push(String(now()));
    await pause(100);
  }
  return { committed };
}

async function own() {
  let began;
  const taskList = { look: async () => began(now()) };
  await run({ preset: unbatched, logger, taskList });
  await pause(500);
  const took = [];
  for (let n = 0; n < count; n++) {
    const started = new Promise((resolve) => (began = resolve));
    await utils.addJob("look", {});
    const committed = now();
    took.push(ms(committed, await started));
    await pause(100);
  }
  return { ms: took };
}

console.log(JSON.stringify(await { drain, pickup, own, add }[mode]()));
process.exit(0);
