package linear;

import java.util.Arrays;
import java.util.Objects;

/** A dense matrix of doubles. */
public final class Matrix {
    private final double[][] rows;
    private final int width;

    public Matrix(double[][] rows) {
        this.rows = Objects.requireNonNull(rows);
        this.width = rows.length == 0 ? 0 : rows[0].length;
    }

    public Matrix times(Matrix other) {
        double[][] out = new double[rows.length][other.width];
        for (int i = 0; i < rows.length; i++) {
            for (int j = 0; j < other.width; j++) {
                double sum = 0; // inner product
                for (int k = 0; k < width; k++) {
                    sum += rows[i][k] * other.rows[k][j];
                }
                out[i][j] = sum;
            }
        }
        return new Matrix(out);
    }

    @Override
    public String toString() {
        String text = Arrays.deepToString(rows);
        System.out.println(text);
        return text;
    }
}
