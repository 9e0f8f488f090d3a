//! An agent at a terminal.

use sqlflow_tests::python;
use sqlflow_tests::server::program;

/// Starts a command at a new terminal. For each pair of texts it waits until the terminal shows the first, after the
/// previous one, and types the second. Returns everything that the terminal showed.
const TALK: &str = r#"
import json, os, pty, select, signal, sys
steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, tty = pty.fork()
if pid == 0:
    for number in signal.SIGINT, signal.SIGTSTP, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)
shown, heard = b'', 0
for awaited, keys in steps:
    awaited = awaited.encode()
    while awaited not in shown[heard:]:
        if not select.select([tty], [], [], 60)[0]:
            sys.exit('no %r in %r, after %r' % (awaited, shown[heard:], shown[:heard]))
        shown += os.read(tty, 4096)
    heard = shown.index(awaited, heard) + len(awaited)
    os.write(tty, keys.encode())
print(shown.decode())
"#;

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

fn talk(command: &[&str], steps: &[(&str, &str)]) -> String {
    let steps = serde_json::to_string(steps).unwrap();
    let arguments: Vec<_> = [steps.as_str()].into_iter().chain(command.iter().copied()).collect();
    python::run(TALK, &arguments).unwrap()
}

/// Like [`talk`], for a script in which `$0` is the agent.
fn talk_to_script(script: &str, steps: &[(&str, &str)]) -> String {
    let agent = program("sqlflow-agent");
    talk(&["sh", "-c", script, agent.to_str().unwrap()], steps)
}

/// Types into an interactive shell whose first job is this command line. `$AGENT` is the agent, and `$PYTHON -c
/// "$CODE"` runs this code.
fn talk_to_job(job: &str, code: &str, steps: &[(&str, &str)]) -> String {
    let agent = format!("AGENT={}", program("sqlflow-agent").display());
    let python = format!("PYTHON={}", python::program().display());
    let code = format!("CODE={code}");
    let job = format!("{job}\n");
    // With `set -b` the shell reports at once that a job in the background has stopped.
    let start = [("> ", "set -b\n"), ("> ", job.as_str())];
    let shell = ["env", "TERM=dumb", "PS1=> ", &agent, &python, &code, "bash", "--noprofile", "--norc", "-i"];
    talk(&shell, &[&start, steps].concat())
}

/// Types into an interactive shell whose first job is the agent with this Python code as its command. A shell with a
/// list of commands would not do: it may ignore Ctrl+Z while it waits for the exec of a child that was stopped earlier.
fn talk_to_shell(code: &str, steps: &[(&str, &str)]) {
    talk_to_job("$AGENT exec -- $PYTHON -c \"$CODE\"", code, steps);
}

/// Each command owns the terminal while it runs. The agent must give it back, or the next command is in the background.
#[test]
fn ctrl_c_ends_the_second_of_two_commands() {
    let three = r#""$0" exec -- true; "$0" exec -- /no/such/program
"$0" exec -- sh -c 'echo ready; exec sleep 600'; echo "code $?, over""#;
    talk_to_script(three, &[("ready", CTRL_C), ("code 130, over", "")]);
}

/// A pager reads the terminal too. In the background it would be stopped.
#[test]
fn pager_after_the_agent_keeps_the_terminal() {
    // As in an interactive shell, each pipeline has a process group of its own.
    let paged = r#"set -m; "$0" exec -- sh -c 'while echo a line; do sleep 0.05; done' |
sh -c 'read line; echo "$line"; echo ready; read key < /dev/tty; echo "pressed $key"'
echo "paged, over""#;
    let shown = talk_to_script(paged, &[("ready", "q\n"), ("over", "")]);
    assert!(shown.contains("a line") && shown.contains("pressed q"), "{shown}");
}

/// Waits until it is stopped and continued, reads the terminal, and ends.
const READ: &str = "import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])
print('ready', flush=True)
signal.sigwait([signal.SIGCONT])
print('continued', flush=True)
print('got', sys.stdin.readline(), flush=True)
sys.exit(7)";

/// The terminal stops the command only. The shell waits for the agent.
#[test]
fn ctrl_z_stops_agent_and_command_and_fg_continues_both() {
    talk_to_shell(
        READ,
        &[
            ("ready", CTRL_Z),
            ("Stopped", "fg\n"),
            ("continued", "a word\n"),
            ("got a word", ""),
            ("> ", "echo code $?\n"),
            ("code 7", ""),
        ],
    );
}

/// In the background the command runs until it reads the terminal.
#[test]
fn bg_continues_the_command_until_it_reads_the_terminal() {
    talk_to_shell(
        READ,
        &[
            ("ready", CTRL_Z),
            ("Stopped", "bg\n"),
            ("Stopped", "fg\n"),
            // `fg` shows the job.
            ("fg", ""),
            ("exec", "a word\n"),
            ("got a word", ""),
            ("> ", "echo code $?\n"),
            ("code 7", ""),
        ],
    );
}

/// Prints who owns the terminal, whenever that changes or the command is continued.
const WATCH: &str = "import os, signal, time
was = None
def forget(*_):
    global was
    was = None
signal.signal(signal.SIGCONT, forget)
while True:
    holder = os.tcgetpgrp(0)
    now = {os.getpid(): 'command', os.getppid(): 'agent'}.get(holder, 'shell')
    if now != was:
        print('the terminal is the ' + now + '\\'s', flush=True)
    was = now
    time.sleep(0.01)";

/// The shell sends no CONT to a running job, so the agent does not learn that it is in the foreground.
#[test]
fn running_background_job_can_be_stopped_and_interrupted_after_fg() {
    let state = "grep State: /proc/$(cat /proc/$(jobs -p)/task/*/children | tr -d ' ')/status\n";
    talk_to_shell(
        WATCH,
        &[
            ("the terminal is the command's", CTRL_Z),
            ("Stopped", "bg\n"),
            ("the terminal is the shell's", "fg\n"),
            ("the terminal is the agent's", CTRL_Z),
            ("Stopped", state),
            ("T (stopped)", "fg\n"),
            ("the terminal is the command's", CTRL_C),
            ("> ", "echo code $?\n"),
            ("code 130", ""),
        ],
    );
}

/// The kernel does not stop an orphaned process group. An agent that stopped itself there would never continue.
#[test]
fn ctrl_z_without_a_shell_stops_nothing() {
    let (agent, python) = (program("sqlflow-agent"), python::program());
    let command = [agent.to_str().unwrap(), "exec", "--", python.to_str().unwrap(), "-c", READ];
    talk(&command, &[("ready", CTRL_Z), ("continued", "a word\n"), ("got a word", "")]);
}

/// [`READ`], with its output on stderr.
const READ_APART: &str = "import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])
print('ready', file=sys.stderr)
signal.sigwait([signal.SIGCONT])
print('continued', file=sys.stderr)
print('got', sys.stdin.readline(), file=sys.stderr)
sys.exit(7)";

/// Job control and reading work also if the output is redirected or logged.
#[test]
fn command_with_redirected_output_keeps_job_control_and_terminal_input() {
    let dir = tempfile::tempdir().unwrap();
    let with_log = format!("$AGENT exec --log-to {}/run -- $PYTHON -c \"$CODE\"", dir.path().display());
    for (how, code) in [
        ("$AGENT exec -- $PYTHON -c \"$CODE\" > /dev/null", "code 7"),
        // The exit code of a pipeline is that of its last command.
        ("$AGENT exec -- $PYTHON -c \"$CODE\" | cat", "code 0"),
        (&with_log, "code 7"),
        ("sh -c '\"$@\"; exit $?' sh $AGENT exec -- $PYTHON -c \"$CODE\"", "code 7"),
    ] {
        let steps = [
            ("ready", CTRL_Z),
            ("Stopped", "fg\n"),
            ("continued", "a word\n"),
            ("got a word", ""),
            ("> ", "echo code $?\n"),
            (code, ""),
        ];
        talk_to_job(how, READ_APART, &steps);
    }
}

/// Reports when it is continued, and reads the terminal.
const CONTINUED: &str = "import signal, sys
signal.signal(signal.SIGCONT, lambda *_: print('continued', flush=True))
print('got', sys.stdin.readline(), flush=True)";

/// The shell must see that the job waits for the terminal, since only the shell can continue it.
#[test]
fn background_command_that_reads_the_terminal_waits_for_fg() {
    // The shell continues it, then the agent, once it owns the terminal.
    let steps =
        [("Stopped", "fg\n"), ("continued", ""), ("continued", "a word\n"), ("got a word", ""), ("> ", "")];
    talk_to_job("$AGENT exec -- $PYTHON -c \"$CODE\" &", CONTINUED, &steps);
}

/// The shell is gone, so no `fg` comes. Without the agent the kernel returns an error to such a reader.
#[test]
fn orphaned_command_that_reads_the_terminal_is_killed() {
    let steps = [("it uses a terminal that it does not own", ""), ("killed by SIGHUP", "")];
    talk_to_job("($AGENT exec -- cat < /dev/tty &)", "", &steps);
    let steps = [("it uses a terminal that it does not own", ""), ("killed by SIGTERM", "")];
    talk_to_job("(trap '' HUP; $AGENT exec -- cat < /dev/tty &)", "", &steps);
    let steps = [("it uses a terminal that it does not own", ""), ("killed by SIGKILL", "")];
    talk_to_job("(trap '' HUP TERM; $AGENT exec -- cat < /dev/tty &)", "", &steps);
}

/// First the agent is the leader of the session, then a job of another shell.
#[test]
fn shell_under_the_agent_is_interactive_with_job_control() {
    let steps = [
        ("in> ", "test -t 0 -a -t 1 -a -t 2 && echo \"interactive $-\" | tr a-z A-Z\n"),
        ("INTERACTIVE", "$PYTHON -c \"$CODE\"\n"),
        ("ready", CTRL_Z),
        ("Stopped", "fg\n"),
        ("continued", "a word\n"),
        ("got a word", ""),
        // A shell may miss a Ctrl+C just before it starts a program.
        ("in> ", "$PYTHON -c \"import time; print('be' + 'gun'); time.sleep(600)\"\n"),
        ("begun", CTRL_C),
        ("in> ", "exit 5\n"),
        ("exit", ""),
    ];
    let (agent, python) = (program("sqlflow-agent"), format!("PYTHON={}", python::program().display()));
    let code = format!("CODE={READ}");
    let shell = ["TERM=dumb", "PS1=in> ", "bash", "--noprofile", "--norc"];
    let leader = ["env", &python, &code, agent.to_str().unwrap(), "exec", "--", "env"];
    talk(&[&leader[..], &shell].concat(), &steps);
    let job = "$AGENT exec -- env TERM=dumb 'PS1=in> ' bash --noprofile --norc";
    talk_to_job(job, READ, &[&steps[..], &[("> ", "echo code $?\n"), ("code 5", "")]].concat());
}

/// Like an editor or pager: at Ctrl+Z it restores the terminal and stops itself; when continued, it draws again.
const EDITOR: &str = "import os, signal, sys, termios, tty
before = termios.tcgetattr(0)
def stop(*_):
    termios.tcsetattr(0, termios.TCSADRAIN, before)
    print('restored', flush=True)
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(HOW, signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, stop)
    draw()
def draw():
    tty.setcbreak(0)
    print('drawn', os.isatty(1), flush=True)
signal.signal(signal.SIGTSTP, stop)
draw()
while True:
    try:
        key = os.read(0, 1)
    except InterruptedError:
        continue
    if key == b'q':
        break
termios.tcsetattr(0, termios.TCSADRAIN, before)
sys.exit(9)";

#[test]
fn editor_is_stopped_and_continued() {
    for how in ["0", "os.getpid()"] {
        talk_to_shell(
            &EDITOR.replace("HOW", how),
            &[
                ("drawn True", CTRL_Z),
                ("restored", ""),
                ("Stopped", "fg\n"),
                ("drawn True", CTRL_Z),
                ("Stopped", "fg\n"),
                ("drawn True", "q"),
                ("> ", "echo code $?\n"),
                ("code 9", ""),
            ],
        );
    }
}

/// A log takes the output from pipes, so the command has no terminal on stdout. The docs say so.
#[test]
fn output_is_piped_with_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "\"$0\" exec --log-to {}/run -- sh -c 'test -t 1 || echo piped'; echo over",
        dir.path().display()
    );
    talk_to_script(&script, &[("piped", ""), ("over", "")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("run/stdout")).unwrap(), "piped\n");
}
