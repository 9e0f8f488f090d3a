//! An agent at a terminal.

use sqlflow_tests::python;
use sqlflow_tests::server::program;

/// Types Ctrl+C when the last of several commands is ready, and gives what the terminal showed.
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
        os.write(tty, b'\x03')
        typed = True
print(seen.decode())
"#;

/// Each command has the terminal while it runs. It has to go back, or the next one would not be in its foreground.
#[test]
fn who_types_ctrl_c_means_the_command_also_in_the_second_one() {
    let agent = program("sqlflow-agent");
    let three = r#""$0" exec -- true; "$0" exec -- /no/such/program
"$0" exec -- sh -c 'echo ready; exec sleep 600'; echo "code $?, over""#;
    let shown = python::run(TYPE, &[agent.to_str().unwrap(), three]).unwrap();
    assert!(shown.contains("code 130, over"), "{shown}");
}
