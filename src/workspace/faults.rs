//! Where a disk may fail: every step of a write passes here before it is taken. In the program nothing stands in its way.
//! Tests let the Nth step fail: that one alone, or with all that follow it, which leaves what a kill there would leave.

#[cfg(not(test))]
pub fn step() -> Result<(), rustix::io::Errno> {
    Ok(())
}

#[cfg(test)]
pub use injected::{Injected, step};

#[cfg(test)]
mod injected {
    use rustix::io::Errno;
    use std::cell::Cell;

    #[derive(Clone, Copy)]
    struct Fault {
        /// Steps that were come to.
        taken: usize,
        /// The one that fails, from 0.
        at: usize,
        errno: Errno,
        lasts: bool,
    }

    thread_local! {
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// A fault of this thread's writes, until it is dropped.
    pub struct Injected(());

    impl Injected {
        pub fn once(at: usize, errno: Errno) -> Self {
            Self::new(Fault { taken: 0, at, errno, lasts: false })
        }

        pub fn from_then_on(at: usize, errno: Errno) -> Self {
            Self::new(Fault { taken: 0, at, errno, lasts: true })
        }

        fn new(fault: Fault) -> Self {
            FAULT.set(Some(fault));
            Self(())
        }

        /// Whether the step it was for was come to.
        pub fn was_met(&self) -> bool {
            FAULT.get().is_some_and(|fault| fault.taken > fault.at)
        }
    }

    impl Drop for Injected {
        fn drop(&mut self) {
            FAULT.set(None);
        }
    }

    pub fn step() -> Result<(), Errno> {
        let Some(mut fault) = FAULT.get() else { return Ok(()) };
        let fails = fault.taken == fault.at || (fault.lasts && fault.taken > fault.at);
        fault.taken += 1;
        FAULT.set(Some(fault));
        if fails { Err(fault.errno) } else { Ok(()) }
    }
}
