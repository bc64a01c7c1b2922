//! The table that `make bench` prints: each figure beside its floor of the same run, its limit, and whether it holds.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// `s`, `CPU s` or `MiB`.
    pub unit: &'static str,
    /// Ours, the median.
    pub measured: f64,
    /// What it is divided by, and its name; none where the limit is absolute.
    pub floor: Option<(f64, String)>,
    /// The largest ratio, or the largest value; none where the row only informs.
    pub limit: Option<f64>,
}

impl Row {
    /// The measured value in floors, or itself where there is none.
    pub fn ratio(&self) -> f64 {
        match &self.floor {
            Some((floor, _)) => self.measured / floor,
            None => self.measured,
        }
    }

    /// Whether it keeps its limit.
    pub fn holds(&self) -> Option<bool> {
        self.limit.map(|limit| self.ratio() <= limit)
    }
}

/// Rows in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    /// Sentences below the table: what to know about this run.
    pub remarks: Vec<String>,
}

impl Table {
    /// A value that is only shown.
    pub fn shown(&mut self, figure: &str, unit: &'static str, measured: f64) {
        self.rows.push(Row {
            figure: figure.to_owned(),
            unit,
            measured,
            floor: None,
            limit: None,
        });
    }

    /// A value with a limit in floors.
    pub fn ratio(
        &mut self,
        figure: &str,
        unit: &'static str,
        measured: f64,
        (floor, name): (f64, &str),
        limit: f64,
    ) {
        self.rows.push(Row {
            figure: figure.to_owned(),
            unit,
            measured,
            floor: Some((floor, name.to_owned())),
            limit: Some(limit),
        });
    }

    /// A value with a limit of its own.
    pub fn absolute(&mut self, figure: &str, unit: &'static str, measured: f64, limit: f64) {
        self.rows.push(Row {
            figure: figure.to_owned(),
            unit,
            measured,
            floor: None,
            limit: Some(limit),
        });
    }

    /// For people, and as it goes into the README.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "| figure | measured | floor | ratio | limit | |\n|---|---:|---|---:|---:|---|\n",
        );
        for row in &self.rows {
            let floor = row
                .floor
                .as_ref()
                .map_or(String::new(), |(floor, name)| format!("{floor:.3} {name}"));
            let ratio = row
                .floor
                .as_ref()
                .map_or(String::new(), |_| format!("{:.2}", row.ratio()));
            let limit = row.limit.map_or(String::new(), |limit| format!("{limit}"));
            let verdict = match row.holds() {
                Some(true) => "ok",
                Some(false) => "over",
                None => "",
            };
            let _ = writeln!(
                out,
                "| {} | {:.3} {} | {floor} | {ratio} | {limit} | {verdict} |",
                row.figure, row.measured, row.unit
            );
        }
        for remark in &self.remarks {
            let _ = write!(out, "\n- {remark}");
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "figure": row.figure,
                    "unit": row.unit,
                    "measured": row.measured,
                    "floor": row.floor.as_ref().map(|(floor, _)| floor),
                    "floor_name": row.floor.as_ref().map(|(_, name)| name),
                    "ratio": row.floor.as_ref().map(|_| row.ratio()),
                    "limit": row.limit,
                    "ok": row.holds(),
                })
            })
            .collect();
        json!({ "figures": rows, "remarks": self.remarks })
    }
}
