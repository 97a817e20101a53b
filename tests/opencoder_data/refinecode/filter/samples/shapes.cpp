// Areas of a few shapes, printed as a table.
#include <cmath>
#include <iostream>
#include <memory>
#include <vector>
using namespace std;

class Shape {
public:
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

class Circle : public Shape {
    double radius;
public:
    explicit Circle(double r) : radius(r) {}
    double area() const override { return M_PI * radius * radius; }
};

template <typename T>
T largest(const vector<T> &values) {
    T best = values.at(0);
    for (const auto &v : values)
        if (best < v) best = v;
    return best;
}

int main() {
    vector<unique_ptr<Shape>> shapes;
    const char *raw = R"(a "raw" // string)";
    vector<double> areas;
    for (int i = 1; i <= 5; ++i) {
        shapes.push_back(make_unique<Circle>(i * 0.5));
        areas.push_back(shapes.back()->area());
        cout << i << "\t" << areas.back() << endl;
    }
    cout << largest(areas) << raw << endl;
    return 0;
}
