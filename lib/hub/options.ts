// What every function that reaches for the hub can be told.

import { isOfflineEverywhere } from "./environment.ts";
import type { TokenOption } from "./token.ts";

/** One step of loading; each stage ends with one event whose `loaded` is `total`. */
export interface ProgressEvent {
  readonly stage: "resolve" | "download" | "upload" | "read" | "place" | "ready";
  readonly file: string;
  readonly loaded: number;
  readonly total: number;
  /** Over all files of the stage; the total is known from its first event on. */
  readonly total_loaded: number;
  readonly total_bytes: number;
}

/** Options that say which files of a repository are meant and how they may be got. */
export interface HubOptions {
  /** Branch, tag or commit. Default "main"; means nothing for a directory. Also as `name@revision`. */
  readonly revision?: string | undefined;
  /** Folder inside the directory or repository. Default "". */
  readonly subfolder?: string | undefined;
  /** Default: `HF_HUB_CACHE`, else `HF_HOME`/hub, else ~/.cache/huggingface/hub: the cache of Python. */
  readonly cache_dir?: string | undefined;
  /** Default: `HF_TOKEN`, else what `torchformers login` wrote. Sent to the hub only. false sends none. */
  readonly token?: TokenOption;
  /** Never use the network; `HF_HUB_OFFLINE=1` says the same for all calls. Default false. */
  readonly local_files_only?: boolean | undefined;
  /** Download what is in the cache already once more. Default false. */
  readonly force_download?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told of what is downloaded, at most ten times a second. */
  readonly progress_callback?: ((event: ProgressEvent) => void) | undefined;
}

/** The names of {@link HubOptions}, to tell them from other options. */
export const HUB_OPTIONS = [
  "revision",
  "subfolder",
  "cache_dir",
  "token",
  "local_files_only",
  "force_download",
  "signal",
  "progress_callback",
] as const satisfies readonly (keyof HubOptions)[];

/** True when the network must not be used. */
export const isOffline = ({ local_files_only = false }: HubOptions = {}): boolean =>
  local_files_only || isOfflineEverywhere();

/** Tells of bytes over several files: at most ten times a second, and once when everything is there. */
export class ByteProgress {
  readonly #callback: HubOptions["progress_callback"];
  readonly #stage: ProgressEvent["stage"];
  readonly #files = new Map<string, { loaded: number; readonly total: number }>();
  #total = 0;
  #loaded = 0;
  #last = 0;

  constructor(
    stage: ProgressEvent["stage"],
    callback: HubOptions["progress_callback"],
    files: Iterable<{ readonly path: string; readonly size: number }>,
  ) {
    this.#stage = stage;
    this.#callback = callback;
    for (const { path, size } of files) {
      this.#files.set(path, { loaded: 0, total: size });
      this.#total += size;
    }
  }

  /** Bytes more of a file; fewer when something has to be fetched again. */
  add(file: string, bytes: number): void {
    const state = this.#files.get(file);
    if (state === undefined) return;
    // A server without ranges sends some bytes again.
    const more = Math.min(bytes, state.total - state.loaded);
    state.loaded += more;
    this.#loaded += more;
    const now = performance.now();
    if (this.#loaded !== this.#total && now - this.#last < 100) return;
    this.#last = now;
    this.#tell(file);
  }

  /** The file is there, whatever was counted so far. */
  done(file: string): void {
    const state = this.#files.get(file);
    if (state !== undefined && state.loaded !== state.total) this.add(file, state.total - state.loaded);
  }

  /** One more event, with the totals, before the first byte. */
  begin(): void {
    const [first] = this.#files.keys();
    if (first !== undefined) this.#tell(first);
  }

  #tell(file: string): void {
    const { loaded, total } = this.#files.get(file) as { loaded: number; total: number };
    this.#callback?.({
      stage: this.#stage,
      file,
      loaded,
      total,
      total_loaded: this.#loaded,
      total_bytes: this.#total,
    });
  }
}
