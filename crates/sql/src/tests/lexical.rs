//! Boundaries of statements in each dialect, and that their text is unchanged.

use super::super::dialect::Dialect::{self, Mysql, Postgresql, Sqlite};
use super::super::error::SqlError;
use super::super::splitter::parse_program;
use super::super::{Body, compile};

fn texts(sql: &str, dialect: Dialect) -> Vec<String> {
    let program = parse_program(sql, dialect).unwrap_or_else(|error| panic!("{dialect}: {sql}: {error}"));
    program.statements.into_iter().map(|statement| statement.text).collect()
}

/// Asserts that `a` and `b` are two statements.
fn splits(a: &str, b: &str, dialect: Dialect) {
    assert_eq!(texts(&format!("{a}{b}"), dialect), [a, b], "{dialect}");
}

/// Asserts that `sql` is one statement.
fn whole(sql: &str, dialect: Dialect) {
    assert_eq!(texts(sql, dialect), [sql], "{dialect}");
}

#[test]
fn semicolon_in_quotes_ends_no_statement_in_any_dialect() {
    for dialect in Dialect::ALL {
        splits("SELECT 'a;''b', \"c;\"\"d\";", " SELECT 2", dialect);
        splits("SELECT 1 /* ; ' */;", "-- ; '\nSELECT 2;", dialect);
        splits("SELECT 'ü;\u{1f980}';", "SELECT '\u{a0};'", dialect);
    }
    splits(r"SELECT 'it\'s; ok', `a``;`;", "SELECT 2", Mysql);
    splits(r"SELECT '\';", "SELECT '\\'", Postgresql);
    splits(r"SELECT E'it\'s;', '\';", "SELECT 2", Postgresql);
    splits(r"SELECT '\', `a;`, [b;c];", "SELECT 2", Sqlite);
    splits("SELECT [a\n;", "SELECT 2", Sqlite);
    splits("SELECT $1, $$a;$x$;$$, $t$;$$;$u$;$t$, a$b$;", "SELECT 2", Postgresql);
    splits("SELECT 1$$a;$$, $1$$;$$, $\u{1f980}$;$\u{1f980}$, \u{1f980}$$;", "SELECT 2", Postgresql);
    splits("SELECT E'a' -- b;\n 'it\\'s;';", "SELECT E'a' 'b\\'", Postgresql);
}

#[test]
fn semicolon_in_a_comment_ends_no_statement_in_any_dialect() {
    splits("SELECT 1 # ; '\n;", "SELECT 5--1;", Mysql);
    splits("SELECT 1 -- ;\n;", "SELECT 2", Mysql);
    splits("SELECT a#b;", "SELECT 1--;\n+2", Postgresql);
    splits("SELECT 1 -- '\r;", "SELECT 2 -- ;\n;", Postgresql);
    splits("SELECT 1 -- ;\r;\n;", "SELECT 2", Sqlite);
    splits("SELECT 1 /* /* ; */ ; */;", "SELECT 2", Postgresql);
    splits("SELECT 1 /* /* ; */;", "SELECT 2", Sqlite);
    splits("/*!40101 SET NAMES utf8; */;", "SELECT 2", Mysql);
    assert_eq!(texts("/*!40101 SET NAMES utf8 */; /* gone */", Mysql), ["/*!40101 SET NAMES utf8 */;"]);
    assert_eq!(texts("SELECT 1; /* to the end", Sqlite), ["SELECT 1;"]);
}

#[test]
fn unclosed_string_or_comment_is_rejected_at_its_start() {
    for (sql, dialect, message) in [
        ("SELECT 1;\n SELECT 'a", Mysql, "line 2, column 9: found \"'a\", expected a closing '"),
        ("SELECT \"a", Sqlite, "line 1, column 8: found \"\"a\", expected a closing \""),
        ("SELECT `a", Sqlite, "line 1, column 8: found \"`a\", expected a closing `"),
        (
            "SELECT $x$ $$",
            Postgresql,
            "line 1, column 8: found \"$x$ $$\", expected the closing dollar quote",
        ),
        ("SELECT 1 /* /* */", Postgresql, "line 1, column 10: found \"/* /* */\", expected a closing */"),
        ("SELECT 1 TO TRAIN E LABEL 'l", Mysql, "line 1, column 27: found \"'l\", expected a closing '"),
    ] {
        assert_eq!(parse_program(sql, dialect).expect_err(sql).to_string(), message);
    }
}

#[test]
fn semicolon_in_a_routine_body_ends_no_statement() {
    for sql in [
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE u SET a = CASE WHEN b THEN 1 ELSE 2 END; DELETE FROM v; END;",
        "CREATE TEMP TRIGGER IF NOT EXISTS r AFTER INSERT ON t BEGIN SELECT ';'; END;",
    ] {
        splits(sql, " SELECT 1;", Sqlite);
    }
    for sql in [
        "CREATE PROCEDURE p() BEGIN IF a THEN SELECT 1; ELSEIF b THEN SELECT 2; END IF; SELECT IF(a, 1, 2); END;",
        "CREATE DEFINER=`a`@`%` PROCEDURE p() BEGIN w: WHILE x DO SET x = 0; END WHILE w; END;",
        "CREATE PROCEDURE p() BEGIN CASE x WHEN 1 THEN SELECT 1; ELSE BEGIN END; END CASE; END;",
        "CREATE PROCEDURE p() BEGIN REPEAT SET x = REPEAT('a', 3); UNTIL x END REPEAT; LOOP SELECT 1; END LOOP; END;",
        "CREATE PROCEDURE p() BEGIN IF (a) AND (b) THEN SELECT 1; END IF; DROP TABLE IF EXISTS t; END;",
        "CREATE FUNCTION f() RETURNS INT BEGIN RETURN CASE a WHEN 1 THEN IF(b, 1, 2) ELSE 3 END; END;",
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW IF NEW.a THEN SET NEW.b = 1; END IF;",
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.b = 1;",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; END;",
        "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END;",
        "BEGIN;",
        "CREATE TABLE t (`begin` INT);",
    ] {
        splits(sql, " SELECT 1;", Mysql);
    }
    splits(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;",
        "SELECT 1",
        Postgresql,
    );
    splits("CREATE FUNCTION f() RETURNS int AS $$ BEGIN; END $$ LANGUAGE plpgsql;", "SELECT 1", Postgresql);
}

#[test]
fn text_of_a_statement_is_unchanged() {
    let select = "/* ${x} */ SELECT `a;b`, \"q\"\"\", '$(id)', '\\'', '${a.b}' --\r\n\tFROM t\n";
    let program = format!("{select}TO TRAIN E WITH a=\"$(id)\\n`\" LABEL l INTO m;\n\n");
    let parsed = parse_program(&program, Mysql).expect("the program is valid");
    assert_eq!(parsed.statements[0].text, program);
    assert_eq!(parsed.statements[0].body.select(), Some(select));
    let Body::Train(train) = &parsed.statements[0].body else { panic!("it trains") };
    assert_eq!(train.attributes[0].value.to_string(), "\"$(id)\\n`\"");
    for standard in ["SELECT '${a.b}', $(id), `x`\r\n", "\tINSERT INTO t VALUES ('\u{0}', \"\\\\\")"] {
        whole(standard.trim_end(), Mysql);
    }
}

#[test]
fn model_statements_are_recognized_by_their_first_words() {
    let kinds = |sql: &str| -> Vec<&'static str> {
        let program = parse_program(sql, Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        program.statements.iter().map(|statement| statement.body.kind()).collect()
    };
    let all =
        "show models; DESCRIBE MODEL team/m; desc model m;\nDROP MODEL m; DROP MODEL IF EXISTS m -- end\n;";
    assert_eq!(kinds(all), ["show_models", "describe_model", "describe_model", "drop_model", "drop_model"]);
    let standard = "SHOW TABLES; DESCRIBE `model` a; DESCRIBE models; DROP TABLE model; SELECT 1 FROM model";
    assert_eq!(kinds(standard), ["standard"; 5]);
    let Body::DropModel(drop) = &parse_program("DROP MODEL IF EXISTS m", Mysql).unwrap().statements[0].body
    else {
        panic!("it drops a model")
    };
    assert!(drop.if_exists && drop.model.text == "m");
    for (sql, message) in [
        ("SHOW MODELS m", "line 1, column 13: found \"m\", expected \";\""),
        ("DROP MODEL", "line 1, column 11: found the end of the program, expected IF or a model name"),
        ("DROP MODEL IF m", "line 1, column 15: found \"m\", expected EXISTS"),
        ("DESCRIBE MODEL a/../b", "line 1, column 16: the model name \"a/../b\" has the segment"),
    ] {
        let error = compile(sql, Mysql).expect_err(sql).to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn position_of_a_statement_is_its_first_word() {
    let program = parse_program("-- c\n\n  SELECT 1;\u{a0}é;", Mysql).expect("it splits");
    let positions: Vec<_> = program.statements.iter().map(|s| (s.position.line, s.position.column)).collect();
    assert_eq!(positions, [(3, 3), (3, 13)]);
}

#[test]
fn keywords_are_names_of_columns_where_no_other_reading_is_possible() {
    let train = |clause: &str| {
        let sql = format!("SELECT 1 TO TRAIN E {clause}");
        let program = parse_program(&sql, Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let Body::Train(train) = program.statements[0].body.clone() else { panic!("it trains") };
        let columns: Vec<_> =
            train.columns.iter().flat_map(|it| &it.columns).map(|it| it.expr.to_string()).collect();
        (columns.join(" "), train.label.map(|it| it.text), train.into.text)
    };
    let label = |text: &str| Some(text.to_owned());
    for (clause, columns, expected) in [
        ("LABEL label INTO m", "", label("label")),
        ("LABEL Into INTO m", "", label("Into")),
        ("LABEL using USING n INTO m", "", label("using")),
        ("COLUMN label, with, a LABEL not INTO m", "label with a", label("not")),
        ("COLUMN a, label LABEL y INTO m", "a label", label("y")),
        ("COLUMN column COLUMN for FOR b LABEL y INTO m", "column for", label("y")),
        ("COLUMN label INTO m", "label", None),
        (
            "COLUMN INDICATOR(label), CROSS([to, for], 3) LABEL y INTO m",
            "INDICATOR(label) CROSS([to,for],3)",
            label("y"),
        ),
        ("COLUMN * EXCEPT (label, show) LABEL y INTO m", "EXCEPT(label,show)", label("y")),
        ("COLUMN * EXCEPT run LABEL y INTO m", "EXCEPT(run)", label("y")),
    ] {
        let (found, found_label, into) = train(clause);
        let plain = |text: &str| text.replace(' ', "");
        assert_eq!((plain(&found), found_label, into.as_str()), (plain(columns), expected, "m"), "{clause}");
    }
    let evaluated =
        parse_program("SELECT 1 TO EVALUATE m LABEL label; SELECT 1 TO EVALUATE m LABEL show", Mysql);
    assert_eq!(evaluated.expect("it parses").statements.len(), 2);
}

#[test]
fn parts_of_result_tables_may_be_quoted() {
    let target = |name: &str| {
        let sql = format!("SELECT 1 TO PREDICT {name} USING m;");
        let program = parse_program(&sql, Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let Body::Predict(predict) = program.statements[0].body.clone() else { panic!("it predicts") };
        let (table, column) = predict.table_and_column().unwrap();
        (table.to_owned(), column.to_owned())
    };
    for (name, table, column) in [
        ("t.c", "t", "c"),
        ("\"my table\".\"my column\"", "\"my table\"", "\"my column\""),
        ("`Order`.c", "\"Order\"", "c"),
        ("db.`t`.`into`", "db.\"t\"", "\"into\""),
        ("\"db\".t.c", "\"db\".t", "c"),
    ] {
        assert_eq!(target(name), (table.to_owned(), column.to_owned()), "{name}");
    }
    let into = |clause: &str| {
        let program = parse_program(&format!("SELECT 1 TO EVALUATE m LABEL y INTO {clause}"), Mysql)?;
        Ok::<_, SqlError>(program.statements[0].body.result_table().map(str::to_owned))
    };
    assert_eq!(into("`a b`").unwrap().as_deref(), Some("\"a b\""));
    assert_eq!(into("d.\"T\";").unwrap().as_deref(), Some("d.\"T\""));
    for wrong in ["'t'", "\"t", "\"\"", "`a``b`", "d. `t`", "\"d\" .t", "\"d\".", "\"d\".'t'", "\"a\\\"b\""] {
        assert!(into(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn syntax_error_lists_all_possible_tokens() {
    for (sql, message) in [
        (
            "SELECT 1 TO TRAIN E WITH a=1 LABLE l INTO m",
            "line 1, column 30: found \"LABLE\", expected \",\", COLUMN, LABEL, USING or INTO; did you mean LABEL?",
        ),
        ("SELECT 1 TO TRAIN E INTO m", "line 1, column 21: found \"INTO\", expected WITH, COLUMN or LABEL"),
        (
            "SELECT 1 TO TRAIN E LABEL l",
            "line 1, column 28: found the end of the program, expected USING or INTO",
        ),
        ("SHOW TRAIN;", "line 1, column 11: found \";\", expected a model name"),
        (
            "SELECT 1 TO PREDICT t.c USNG m;",
            "line 1, column 25: found \"USNG\", expected WITH or USING; did you mean USING?",
        ),
        (
            "SELECT 1 TO PREDICT 't'.c USING m;",
            "line 1, column 21: found \"'t'\", expected [db.]table.column",
        ),
        (
            "SELECT 1 TO PREDICT \"a.b\".c USING m;",
            "line 1, column 21: cannot use \"a.b\" as a part of a table's name: it is empty, or has a dot, a quote, a \
             backslash or a control character; choose another name",
        ),
        (
            "SELECT 1 TO EVALUATE m LABEL l INTO `a.b`;",
            "line 1, column 37: cannot use `a.b` as a part of a table's name: it is empty, or has a dot, a quote, a \
             backslash or a control character; choose another name",
        ),
        (
            "SELECT 1 TO TRAIN E LABEL INTO m",
            "line 1, column 27: found \"INTO\", expected a column; a column of that name needs quotes, as in \"INTO\"",
        ),
        (
            "SELECT 1 TO TRAIN E COLUMN a, LABEL l INTO m",
            "line 1, column 31: found \"LABEL\", expected \"*\" or a column; a column of that name needs quotes, as in \
             \"LABEL\"",
        ),
        (
            "SELECT 1 TO TRAIN E WITH a=1,\n a=2 LABEL l INTO m",
            "line 2, column 2: attribute a is given twice",
        ),
        (
            "SELECT 1 TO TRAIN xgboost.dart WITH eta=1 COLUMN DENS(a) LABEL l INTO m",
            "line 1, column 50: column function DENS does not exist; did you mean DENSE?",
        ),
    ] {
        assert_eq!(compile(sql, Mysql).expect_err(sql).to_string(), message);
    }
    assert_eq!(
        compile(" -- only a comment", Sqlite).expect_err("empty").to_string(),
        "the program has no statement"
    );
}

/// Length of the programs that repeat one piece: small enough for a debug build, large enough to notice quadratic time.
const PATTERN_BYTES: usize = 64 << 10;

/// With quadratic time, it would take hours.
#[test]
fn long_program_is_compiled_in_linear_time() {
    let insert = format!("INSERT INTO t VALUES ('it''s', \"q;\", 'a\\\\{}');\n", "x".repeat(100));
    let sql = insert.repeat((10 << 20) / insert.len());
    let program = parse_program(&sql, Mysql).expect("it splits");
    assert_eq!(program.statements.len(), sql.len() / insert.len());
    for piece in [
        "'' ",
        "[",
        "$",
        "$a ",
        "$1$",
        "/*",
        "/*/*",
        "-",
        "#",
        "\"\"",
        "``",
        "(",
        ")",
        ";",
        "TO ",
        "a TO 'x",
        "x TRAIN # ",
        "x TRAIN y /*",
        "x TRAIN y -",
        "SAVEPOINT a;",
        "RELEASE z;",
        "SHOW TRAIN m;\n",
        "USE d;",
        "a.",
        "\n",
        "@x :=",
        "/*!",
        "IF(",
        "TO TRAIN ",
        "é",
        "\\'",
    ] {
        let body = piece.repeat(PATTERN_BYTES / piece.len());
        for start in
            ["", "SELECT * FROM t ", "SELECT * FROM t TO TRAIN E WITH a=", "CREATE PROCEDURE p() BEGIN ", "'"]
        {
            for dialect in Dialect::ALL {
                let _ = compile(&format!("{start}{body}"), dialect);
            }
        }
    }
    let too_long = " ".repeat(super::super::MAX_PROGRAM_BYTES + 1);
    let error = compile(&too_long, Mysql).expect_err("too long").to_string();
    assert_eq!(error, "line 1, column 1: the program has 16777217 bytes; the maximum is 16777216 (16 MiB)");
}
