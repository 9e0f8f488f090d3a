//! Tests of `escape_settings`: strings after statements that change, or do not change, the rules for backslashes.

use super::*;
use crate::splitter::parse_program;

/// Statements in which a string ends at its second quote by one rule, and later or never by the other.
const AMBIGUOUS: [&str; 3] =
    ["SELECT 'a\\'; SELECT 'b'", "INSERT INTO t VALUES ('a\\'', 1)", "SELECT 'a\\', '; TO TRAIN x'"];

fn refusal(program: &str, dialect: Dialect) -> Option<String> {
    let error = parse_program(program, dialect).err()?.to_string();
    error.contains("cannot determine where this string ends").then_some(error)
}

#[test]
fn string_whose_end_depends_on_a_changed_setting_is_rejected() {
    for (setting, dialect) in [
        ("SET sql_mode = 'NO_BACKSLASH_ESCAPES'", Dialect::Mysql),
        ("set session SQL_MODE=\"ANSI_QUOTES,no_backslash_escapes\"", Dialect::Mysql),
        ("SET @@sql_mode := NO_BACKSLASH_ESCAPES", Dialect::Mysql),
        ("SET @@session.sql_mode = 1048576", Dialect::Mysql),
        ("SET NAMES utf8, sql_mode = 'NO_BACKSLASH_ESCAPES'", Dialect::Mysql),
        ("SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')", Dialect::Mysql),
        ("SET @m = 'NO_BACKSLASH_ESCAPES'; SET sql_mode = @m", Dialect::Mysql),
        ("SELECT 'NO_BACKSLASH_ESCAPES' INTO @m; SET sql_mode = @m", Dialect::Mysql),
        ("/*!40101 SET sql_mode = 'NO_BACKSLASH_ESCAPES' */", Dialect::Mysql),
        ("SET /*!40101 sql_mode = 'NO_BACKSLASH_ESCAPES' */", Dialect::Mysql),
        ("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'; SHOW MODELS", Dialect::Mysql),
        ("SET GLOBAL max_connections = 9, sql_mode = 'NO_BACKSLASH_ESCAPES'; SHOW MODELS", Dialect::Mysql),
        (
            "SET @@global.sql_mode = 'NO_BACKSLASH_ESCAPES'; SELECT a, y FROM t TO TRAIN E LABEL y INTO m",
            Dialect::Mysql,
        ),
        ("PREPARE s FROM 'SET sql_mode = \"NO_BACKSLASH_ESCAPES\"'; EXECUTE s", Dialect::Mysql),
        ("SET standard_conforming_strings = off", Dialect::Postgresql),
        ("SET SESSION Standard_Conforming_Strings TO 'false'", Dialect::Postgresql),
        ("BEGIN; SET LOCAL \"standard_conforming_strings\" TO 0", Dialect::Postgresql),
        ("SELECT set_config('standard_conforming_strings', 'off', false)", Dialect::Postgresql),
        (
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
            Dialect::Postgresql,
        ),
        ("DO $$ BEGIN SET standard_conforming_strings = off; END $$", Dialect::Postgresql),
        ("ALTER ROLE u SET standard_conforming_strings = off; SHOW MODELS", Dialect::Postgresql),
    ] {
        for string in AMBIGUOUS {
            let program = format!("SELECT 1;\n{setting};\n{string}");
            let message = refusal(&program, dialect).unwrap_or_else(|| panic!("{program}"));
            assert!(message.starts_with("line 3, column "), "{message}");
            assert!(message.contains("line 2 may "), "{message}");
        }
        let harmless = format!("{setting}; SELECT 'C:\\temp', '\\\\', 'it''s', 1 -- '\\'\n; SELECT 2");
        assert_eq!(refusal(&harmless, dialect), None, "{harmless}");
    }
}

#[test]
fn string_after_an_unrelated_setting_is_accepted() {
    for (setting, dialect) in [
        ("SET sql_mode = 'ANSI'", Dialect::Mysql),
        ("SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SET sql_mode = ''", Dialect::Mysql),
        ("SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SET SESSION sql_mode = DEFAULT", Dialect::Mysql),
        ("SET sql_mode = 1", Dialect::Mysql),
        ("SET @old = @@sql_mode, sql_mode = 'ANSI'; SET sql_mode = @old", Dialect::Mysql),
        ("SET @sql_mode = 'NO_BACKSLASH_ESCAPES'", Dialect::Mysql),
        ("SET STATEMENT sql_mode = 'NO_BACKSLASH_ESCAPES' FOR SELECT 1", Dialect::Mysql),
        ("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'", Dialect::Mysql),
        ("SELECT 'NO_BACKSLASH_ESCAPES', @@sql_mode", Dialect::Mysql),
        ("-- SET sql_mode = 'NO_BACKSLASH_ESCAPES'\nSELECT 1", Dialect::Mysql),
        ("SET standard_conforming_strings = on", Dialect::Postgresql),
        (
            "SET standard_conforming_strings = off; SET standard_conforming_strings TO DEFAULT",
            Dialect::Postgresql,
        ),
        ("SET standard_conforming_strings = off; RESET ALL", Dialect::Postgresql),
        ("SHOW standard_conforming_strings", Dialect::Postgresql),
        ("SELECT current_setting('standard_conforming_strings')", Dialect::Postgresql),
        ("SELECT set_config('standard_conforming_strings', 'on', false)", Dialect::Postgresql),
        ("BEGIN; SET LOCAL standard_conforming_strings = off; COMMIT", Dialect::Postgresql),
        ("ALTER ROLE u SET standard_conforming_strings = off", Dialect::Postgresql),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET standard_conforming_strings = off AS 'SELECT 1'",
            Dialect::Postgresql,
        ),
    ] {
        for string in AMBIGUOUS {
            let program = format!("{setting};\n{string}");
            assert_eq!(refusal(&program, dialect), None, "{program}");
        }
    }
}
