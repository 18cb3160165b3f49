//! A thread pool made for a forward pass: a few hundred short parallel regions per token, each a loop over chunks.
//! Workers spin for a moment after a region (the next one usually comes within microseconds), then park, so that an
//! idle engine burns no core. No allocation per region. Which thread runs a chunk is left open; whatever runs here
//! must give the same result whichever thread does (each output element is computed by one thread, in a fixed order).
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

/// Rounds of `spin_loop` before a worker parks: roughly 50 microseconds.
const SPINS: u32 = 4_000;

type Job = *const (dyn Fn(usize) + Sync + 'static);

struct Shared {
    /// Raised by one for every region; workers wait for it to change.
    epoch: AtomicUsize,
    /// Next chunk to take; workers that find it at or beyond `chunks` are done with the region.
    next: AtomicUsize,
    chunks: AtomicUsize,
    /// Workers that have left the region of the current epoch.
    left: AtomicUsize,
    /// The region's body, valid from the epoch's rise until every worker has left.
    job: std::cell::UnsafeCell<Option<Job>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    parked: Vec<AtomicBool>,
}

// SAFETY: `job` is written by the caller of `run` only while no worker is inside a region (all have left the last
// one), and read by workers only after they saw the epoch rise (Acquire), which the caller raised after the write
// (Release). The body itself is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer is only ever dereferenced within `run`'s lifetime.
unsafe impl Send for Shared {}

/// A fixed set of worker threads; the calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
}

impl Pool {
    /// `threads` counts the caller: 1 spawns nothing.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let extra = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            chunks: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            job: std::cell::UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            parked: (0..extra).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Vec::with_capacity(extra);
        for index in 0..extra {
            let shared = Arc::clone(&shared);
            let handle = std::thread::Builder::new()
                .name(format!("engine-{}", index + 1))
                .spawn(move || work(&shared, index))?;
            let thread = handle.thread().clone();
            workers.push((handle, thread));
        }
        Ok(Self { shared, workers })
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(chunk)` once for every chunk in `0..chunks`, on all threads; returns when all are done.
    /// `&mut self`: regions never nest and never overlap.
    pub fn run(&mut self, chunks: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || chunks <= 1 {
            (0..chunks).for_each(body);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: every worker has left the last region (waited for below), so nobody reads `job` now. The lifetime
        // is erased, but this function does not return, not even by unwinding, before all workers have left.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync), Job>(body));
        }
        shared.next.store(0, Ordering::Relaxed);
        shared.chunks.store(chunks, Ordering::Relaxed);
        shared.left.store(0, Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (index, (_, thread)) in self.workers.iter().enumerate() {
            if shared.parked[index].load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_chunks(shared, body)));
        let mut spins = 0u32;
        while shared.left.load(Ordering::Acquire) < self.workers.len() {
            spins += 1;
            // A worker that lost its core needs ours to come back.
            if spins.is_multiple_of(SPINS) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("an engine thread panicked"));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            let _ = handle.join();
        }
    }
}

fn take_chunks(shared: &Shared, body: &(dyn Fn(usize) + Sync)) {
    let chunks = shared.chunks.load(Ordering::Relaxed);
    loop {
        let chunk = shared.next.fetch_add(1, Ordering::Relaxed);
        if chunk >= chunks {
            return;
        }
        body(chunk);
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0u32;
        while shared.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            shared.parked[index].store(true, Ordering::SeqCst);
            // Look once more after saying so: a region that began in between would otherwise not wake us.
            if shared.epoch.load(Ordering::SeqCst) == seen {
                std::thread::park();
            }
            shared.parked[index].store(false, Ordering::SeqCst);
        }
        seen += 1;
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the epoch rose, so `job` was written before; it stays valid until we say we have left.
        let body = unsafe { (*shared.job.get()).map(|job| &*job) };
        if let Some(body) = body {
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_chunks(shared, body)));
            if outcome.is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.left.fetch_add(1, Ordering::Release);
    }
}

/// A mutable slice that the chunks of one region write to at disjoint places.
pub struct Shards<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller promises disjoint ranges.
unsafe impl<T: Send> Sync for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), _borrow: std::marker::PhantomData }
    }

    /// # Safety
    /// No two live slices of one `Shards` may overlap. The range is checked.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the borrowed slice, and disjoint from every other by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                let chunks = round % 17;
                let hits: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, &|chunk| {
                    hits[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(8, &|chunk| assert_ne!(chunk, 5));
            }));
            assert!(outcome.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.run(8, &|chunk| {
            sum.fetch_add(chunk, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 28);
    }
}
