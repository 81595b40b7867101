//! A lab for one test: created, started, and ended with the test. Must never outlive it.

use std::path::Path;

use integration::host::Hardware;
use integration::lab::Lab;
use integration::report::Report;
use tempfile::TempDir;

/// Runs a test against a started lab, and ends the lab.
pub fn with_lab(hardware: Vec<Hardware>, test: impl AsyncFnOnce(&mut Lab)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_lab"));
        let mut lab = Lab::lay_out(dir.path(), program, hardware, Report::silent()).unwrap();
        lab.start().await.unwrap();
        test(&mut lab).await;
        lab.stop().await;
    });
}
