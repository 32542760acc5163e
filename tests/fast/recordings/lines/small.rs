//! A driver's method with a branch, and a closure in it.
#![no_std]

pub struct Small(pub u32);

#[inline(never)]
fn run<R>(work: impl FnOnce() -> R) -> R {
    work()
}

impl Small {
    #[inline(never)]
    pub fn reached(&self, value: u32) -> u32 {
        run(|| {
            if value > self.0 {
                value - self.0
            } else {
                self.0.count_ones()
            }
        })
    }
}

impl Drop for Small {
    #[inline(never)]
    fn drop(&mut self) {
        self.0 = 0;
    }
}
