//! An agent at a terminal.

use sqlflow_tests::python;
use sqlflow_tests::server::program;

/// Types a key when the last of several commands is ready, and gives what the terminal showed.
const TYPE: &str = r#"
import os, pty, select, signal, sys
pid, tty = pty.fork()
if pid == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp('sh', ['sh', '-c', sys.argv[2], sys.argv[1]])
seen, typed = b'', False
while b'over' not in seen:
    if not select.select([tty], [], [], 60)[0]:
        sys.exit('nobody heard it: %r' % seen)
    seen += os.read(tty, 4096)
    if b'ready' in seen and not typed:
        os.write(tty, sys.argv[3].encode())
        typed = True
print(seen.decode())
"#;

/// Each command has the terminal while it runs. It has to go back, or the next one would not be in its foreground.
#[test]
fn who_types_ctrl_c_means_the_command_also_in_the_second_one() {
    let agent = program("sqlflow-agent");
    let three = r#""$0" exec -- true; "$0" exec -- /no/such/program
"$0" exec -- sh -c 'echo ready; exec sleep 600'; echo "code $?, over""#;
    let shown = python::run(TYPE, &[agent.to_str().unwrap(), three, "\x03"]).unwrap();
    assert!(shown.contains("code 130, over"), "{shown}");
}

/// A pager reads the terminal too. One that is put into the background would be stopped, and its reader with it.
#[test]
fn a_pager_behind_the_agent_keeps_the_terminal() {
    let agent = program("sqlflow-agent");
    // As from an interactive shell, which has a group for every command.
    let paged = r#"set -m; "$0" exec -- sh -c 'while echo a line; do sleep 0.05; done' |
sh -c 'read line; echo "$line"; echo ready; read key < /dev/tty; echo "pressed $key"'
echo "paged, over""#;
    let shown = python::run(TYPE, &[agent.to_str().unwrap(), paged, "q\n"]).unwrap();
    assert!(shown.contains("a line") && shown.contains("pressed q"), "{shown}");
}
