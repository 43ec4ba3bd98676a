"""What the engine keeps: attempts, secrets, test results, artifacts, snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cd.store.base import UTCDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPEN = sa.text("state IN ('queued', 'running')")
#: SQLite doesn't hold a column to its length.
WIDER = (
    ("deployment", "image", sa.Text()),
    ("image", "digest", sa.Text()),
    ("release", "image", sa.Text()),
    ("run", "image", sa.Text()),
    ("step", "name", sa.String(length=191)),
    ("step", "image", sa.Text()),
    ("verdict", "image", sa.Text()),
)


def upgrade() -> None:
    op.create_table(
        "secret",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_by", sa.String(length=64), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_secret_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secret")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_secret_project_id_name")),
    )
    op.create_table(
        "test_case",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stage", sa.String(length=191), nullable=False),
        sa.Column("classname", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_test_case_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_test_case")),
        sa.UniqueConstraint("project_id", "hash", name=op.f("uq_test_case_project_id_hash")),
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("step_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("blob", sa.String(length=200), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("removed_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_artifact_project_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_artifact_run_id")),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name=op.f("fk_artifact_step_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        sa.UniqueConstraint("step_id", "attempt", "path", name=op.f("uq_artifact_step_id_attempt_path")),
    )
    op.create_index(op.f("ix_artifact_expires_at"), "artifact", ["expires_at"])
    op.create_table(
        "attempt",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("step_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=191), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_attempt_project_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_attempt_run_id")),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name=op.f("fk_attempt_step_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt")),
        sa.UniqueConstraint("step_id", "number", name=op.f("uq_attempt_step_id_number")),
    )
    op.create_index("ix_attempt_history", "attempt", ["project_id", "name", "created_at"])
    op.create_index("ix_attempt_verdicts", "attempt", ["project_id", "key", "image", "state"])
    op.create_index(
        "ix_attempt_shadow",
        "attempt",
        ["project_id", "state"],
        sqlite_where=sa.text("shadow"),
        postgresql_where=sa.text("shadow"),
    )
    op.create_table(
        "snapshot",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("step_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("removed_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_snapshot_project_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_snapshot_run_id")),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name=op.f("fk_snapshot_step_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshot")),
        sa.UniqueConstraint("step_id", "attempt", name=op.f("uq_snapshot_step_id_attempt")),
    )
    op.create_index(op.f("ix_snapshot_expires_at"), "snapshot", ["expires_at"])
    op.create_table(
        "test_result",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("case_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("step_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["test_case.id"], name=op.f("fk_test_result_case_id")),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name=op.f("fk_test_result_step_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_test_result")),
    )
    op.create_index("ix_test_result_case", "test_result", ["case_id", "id"])
    op.create_index("ix_test_result_step", "test_result", ["step_id", "attempt"])
    op.add_column("log_chunk", sa.Column("times", sa.String(length=200), server_default="", nullable=False))
    op.add_column("project", sa.Column("supersede", sa.String(length=8), server_default="waiting", nullable=False))
    op.add_column("project", sa.Column("parallel", sa.Integer(), nullable=True))
    op.add_column("project", sa.Column("keep_failed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_column("project", "next_release")
    op.add_column("release", sa.Column("retired_at", UTCDateTime(), nullable=True))
    op.add_column("run", sa.Column("before", sa.String(length=64), nullable=True))
    op.create_index("ix_run_open_ref", "run", ["project_id", "ref"], sqlite_where=OPEN, postgresql_where=OPEN)
    op.add_column("step", sa.Column("stage", sa.String(length=63), server_default="", nullable=False))
    op.add_column("step", sa.Column("cell", sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("step", sa.Column("services", sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("step", sa.Column("key", sa.String(length=64), nullable=True))
    op.create_index("ix_step_history", "step", ["project_id", "stage", "finished_at"])
    op.add_column("task", sa.Column("owner", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True))
    op.add_column("task", sa.Column("weight", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("verdict", sa.Column("revoked_at", UTCDateTime(), nullable=True))
    if op.get_bind().dialect.name != "sqlite":
        for table, column, kind in WIDER:
            op.alter_column(table, column, type_=kind)


def downgrade() -> None:
    raise NotImplementedError("take back the backup from before the upgrade")
