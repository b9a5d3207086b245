import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Properties;
import java.util.Set;

/**
 * Asks the centre's SQL as tools over JDBC do (DBeaver, Spark, Metabase); prints one line a check and fails with the first that is
 * wrong.
 *
 * <p>usage: java -cp postgresql.jar SqlClient.java PORT, with PGUSER and PGPASSWORD set
 */
public class SqlClient {
    static void check(String what, Object got, Object wanted) {
        if (!wanted.equals(got)) {
            System.err.println(what + ": got " + got + ", wanted " + wanted);
            System.exit(1);
        }
        System.out.println("ok " + what);
    }

    static Set<String> column(ResultSet rows, String name) throws SQLException {
        Set<String> values = new HashSet<>();
        while (rows.next()) {
            values.add(rows.getString(name));
        }
        return values;
    }

    public static void main(String[] arguments) throws SQLException {
        Properties user = new Properties();
        user.setProperty("user", System.getenv("PGUSER"));
        user.setProperty("password", System.getenv("PGPASSWORD"));
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + arguments[0] + "/carebed", user)) {
            String count = "SELECT count(*) FROM observations WHERE home_id = ? AND value > ? AND event_time >= ?";
            try (PreparedStatement statement = connection.prepareStatement(count)) {
                // The driver prepares on the server, and reads binary values, from the fifth time on.
                for (int attempt = 0; attempt < 7; attempt++) {
                    statement.setString(1, "h1");
                    statement.setDouble(2, 0.5);
                    statement.setTimestamp(3, Timestamp.from(Instant.parse("2026-05-01T00:00:00Z")));
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        check("parameters, attempt " + attempt, rows.getLong(1), 10L);
                    }
                }
            }
            // As many rows at once as can be said: no reason to make room for them before they are there.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(Integer.MAX_VALUE);
                try (ResultSet rows = statement.executeQuery("SELECT value FROM observations WHERE home_id = 'h1'")) {
                    int n = 0;
                    while (rows.next()) {
                        n++;
                    }
                    check("all rows at once", n, 10);
                }
            }
            connection.setAutoCommit(true);
            String first = "SELECT event_time, value, text, seq FROM observations WHERE home_id = 'h1' ORDER BY event_time LIMIT 1";
            try (ResultSet rows = connection.createStatement().executeQuery(first)) {
                rows.next();
                check("a time", rows.getTimestamp(1).toInstant(), Instant.parse("2026-05-01T12:00:00Z"));
                check("a number", rows.getDouble(2), 1.0);
                check("nothing", rows.getString(3) == null && rows.wasNull(), true);
                check("a whole number", rows.getLong(4), 0L);
            }
            DatabaseMetaData about = connection.getMetaData();
            try (ResultSet rows = about.getTables(null, "public", "%", null)) {
                check("the tables", column(rows, "TABLE_NAME").containsAll(Arrays.asList("observations", "episodes", "latest")), true);
            }
            try (ResultSet rows = about.getColumns(null, "public", "observations", "%")) {
                check("the columns", column(rows, "COLUMN_NAME").containsAll(Arrays.asList("home_id", "event_time", "value")), true);
            }
            try {
                connection.createStatement().executeUpdate("DELETE FROM observations");
                check("a DELETE", "taken", "refused");
            } catch (SQLException error) {
                check("a DELETE is refused", error.getSQLState(), "25006");
            }
        }
    }
}
