//! Ctrl-C ends a load test with what was measured so far; a second one ends it at once.

use std::{
    io,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// What a shell gives a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// Watches for Ctrl-C from now on.
pub(super) fn watch() -> io::Result<()> {
    let (sender, is_watching) = mpsc::channel();
    thread::Builder::new()
        .name("bench-signals".to_owned())
        .spawn(move || {
            let runtime = Builder::new_current_thread().enable_io().build();
            let outcome = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let mut interrupts = signal(SignalKind::interrupt())?;
                    let _ = sender.send(Ok(()));
                    while interrupts.recv().await.is_some() {
                        if IS_ASKED.swap(true, Ordering::Relaxed) {
                            std::process::exit(EXIT_CODE);
                        }
                    }
                    Ok(())
                })
            });
            if let Err(error) = outcome {
                let _ = sender.send(Err(error)); // nobody waits after a good start
            }
        })?;
    is_watching
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the signal thread ended")))
}

/// True once somebody wants the run to end.
pub(super) fn is_asked() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}
