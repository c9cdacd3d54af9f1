//! Runs another program to its end; a request to stop this process is passed on to it, once.

use super::signals::{Signal, StopRequest};
use crate::error::{Error, Result};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// How often the program and the request are polled; runs take seconds at least.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts a program and waits for its end. When a stop is requested meanwhile, the program gets the same signal and is
/// waited for, so that it can save what it has.
///
/// It runs in a process group of its own: control-C at a terminal reaches this process alone, and the program gets one
/// signal and not two, of which the second would stop it at once.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run_to_end(command: &mut Command, stop: &StopRequest) -> Result<ExitStatus> {
    own_group(command);
    let program = command.get_program().to_owned();
    let mut child = command.spawn().map_err(Error::io("start", &program))?;
    let mut sent = false;
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("wait for", &program))? {
            return Ok(status);
        }
        if let Some(signal) = stop.received().filter(|_| !sent) {
            send(&child, signal).map_err(Error::io("stop", &program))?;
            sent = true;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut Command) {}

/// Sends the signal. The child has not been waited for, so its id cannot be another process's yet.
#[cfg(unix)]
fn send(child: &Child, signal: Signal) -> std::io::Result<()> {
    use rustix::process::{Pid, Signal as Number, kill_process};
    let number = match signal {
        Signal::Interrupt => Number::INT,
        Signal::Terminate => Number::TERM,
    };
    Ok(kill_process(Pid::from_child(child), number)?)
}

/// There are no signals here, so the program is killed; its run resumes from the last checkpoint.
#[cfg(not(unix))]
fn send(child: &Child, _signal: Signal) -> std::io::Result<()> {
    Command::new("taskkill").args(["/F", "/PID", &child.id().to_string()]).status().map(|_| ())
}

/// The signal that ended a program, where there was one.
#[cfg(unix)]
pub fn killed_by(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// The signal that ended a program: there are none here.
#[cfg(not(unix))]
pub fn killed_by(_status: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn its_exit_code_is_returned() {
        let stop = StopRequest::default();
        assert_eq!(run_to_end(&mut shell("exit 7"), &stop).unwrap().code(), Some(7));
        let killed = run_to_end(&mut shell("kill -9 $$"), &stop).unwrap();
        assert_eq!((killed.code(), killed_by(killed)), (None, Some(9)));
        let error = run_to_end(&mut Command::new("/no/such/program"), &stop).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }

    #[test]
    fn a_request_is_passed_on_and_its_answer_awaited() {
        let stop = StopRequest::default();
        let clock = Instant::now();
        stop.request(Signal::Terminate);
        // The signal may come before the trap is set: then it ends the shell itself.
        let script = "trap 'sleep 0.2; exit 5' TERM; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";
        let status = run_to_end(&mut shell(script), &stop).unwrap();
        assert!(status.code() == Some(5) || killed_by(status) == Some(15), "{status:?}");
        assert!(clock.elapsed() < Duration::from_secs(8));
    }
}
