//! Wrong arguments, completion and manual pages, which need no server.

use super::{World, status, stderr, stdout};

#[test]
fn error_for_a_wrong_value_names_its_origin() {
    let world = World::new();
    let said = |name: &str, value: &str, arguments: &[&str]| {
        let output = world.command(arguments).env(name, value).output().unwrap();
        assert_eq!(status(&output), 2, "{output:?}");
        stderr(&output)
    };
    let address = said("SQLFLOW_SERVER", "localhost", &["list"]);
    let expected = "error: invalid value 'localhost' for '--server <ADDRESS>' (from the environment variable \
                    SQLFLOW_SERVER): the port is missing; write localhost:50051\n";
    assert!(address.starts_with(expected), "{address}");
    let flag = said("X", "", &["list", "--server", "localhost"]);
    assert!(flag.starts_with("error: invalid value 'localhost' for '--server <ADDRESS>': "), "{flag}");

    let run = ["run", "-e", "SELECT 1"];
    let source = said("SQLFLOW_DATASOURCE", "oracle://u:hunter2@h/d", &run);
    assert!(source.starts_with("cannot use the data source (from SQLFLOW_DATASOURCE): "), "{source}");
    assert!(!source.contains("hunter2"), "{source}");
    let source = said("X", "", &["run", "-e", "SELECT 1", "--datasource", "iris.db"]);
    assert!(source.starts_with("cannot use the data source (from --datasource): "), "{source}");
    assert!(world.server.script().runs.is_empty());
}

#[test]
fn relative_sqlite_path_is_an_error_with_the_absolute_path() {
    let world = World::new();
    std::fs::write(world.home.path().join("beside.db"), "").unwrap();
    let output = world.run(&["run", "-e", "SELECT 1", "--datasource", "sqlite:///beside.db"]);
    assert_eq!(status(&output), 2, "{output:?}");
    let meant = world.home.path().canonicalize().unwrap().join("beside.db");
    assert!(stderr(&output).contains(&format!("write sqlite:///{}", meant.display())), "{output:?}");
}

#[test]
fn missing_sqlite_file_is_a_warning() {
    let world = World::new();
    let file = world.home.path().join("irs.db");
    let source = format!("sqlite:///{}", file.display());
    let said = |options: &str| {
        let source = format!("{source}{options}");
        let output = world.run(&["run", "--detach", "-e", "SELECT 1", "--datasource", &source]);
        assert_eq!(status(&output), 0, "{output:?}");
        stderr(&output)
    };
    let created = "it is created if the program creates a table";
    let not_created = "correct the path, or add ?mode=rwc, so that CREATE TABLE creates it";
    for (options, what) in
        [("?mode=rwc", created), ("", not_created), ("?mode=ro", not_created), ("?mode=rw", not_created)]
    {
        let said = said(options);
        let file = file.display();
        let expected = format!("warning: SQLite file {file} (from --datasource) does not exist; {what}\n");
        assert!(said.starts_with(&expected), "{said}");
    }
    std::fs::write(&file, "").unwrap();
    assert!(said("?mode=ro").starts_with("job "), "{}", said(""));
    let source = format!("{source}?immutable=1");
    let output = world.run(&["run", "--detach", "-e", "SELECT 1", "--datasource", &source]);
    assert_eq!(status(&output), 2, "{output:?}");
    assert!(stderr(&output).contains("supported: ?mode=ro, ?mode=rw and ?mode=rwc"), "{output:?}");
}

#[test]
fn local_server_address_may_be_only_a_port() {
    let world = World::new();
    let port = world.server.address.port();
    for address in [format!(":{port}"), format!("localhost:{port}"), format!("http://localhost:{port}")] {
        let output = world.command(&["list"]).env("SQLFLOW_SERVER", &address).output().unwrap();
        assert_eq!(status(&output), 0, "{address}: {output:?}");
    }
}

#[test]
fn completion_scripts_are_printed_for_each_shell() {
    let world = World::new();
    for (shell, part) in [
        ("bash", "complete -F _sqlflowctl"),
        ("zsh", "#compdef sqlflowctl"),
        ("fish", "complete -c sqlflowctl"),
    ] {
        let output = world.run(&["completion", shell]);
        assert_eq!(status(&output), 0);
        assert!(stdout(&output).contains(part), "{shell}");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let world = World::new();
    let output = world.run(&["man", "share/man1"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let folder = world.home.path().join("share/man1");
    for page in ["sqlflowctl.1", "sqlflowctl-run.1"] {
        let text =
            std::fs::read_to_string(folder.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".TH ") && text.contains("SYNOPSIS"), "{page}");
    }
}
