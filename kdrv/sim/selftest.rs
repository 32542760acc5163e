// SPDX-License-Identifier: GPL-2.0

//! Breaks an assertion that only kernels with debug assertions check. See `kdrv/sim/alive.py`.

use kernel::prelude::*;

module! {
    type: SelfTest,
    name: "kdrv_selftest_rust",
    authors: ["kdrv"],
    description: "Breaks a debug assertion",
    license: "GPL",
}

struct SelfTest;

impl kernel::Module for SelfTest {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        debug_assert!(core::hint::black_box(false), "debug assertions are checked");
        pr_info!("debug assertions are not checked\n");
        Ok(SelfTest)
    }
}
