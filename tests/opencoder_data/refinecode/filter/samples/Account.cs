using System;
using System.Collections.Generic;

namespace Bank
{
    /// <summary>An account that keeps its history.</summary>
    public class Account
    {
        private readonly List<decimal> history = new List<decimal>();
        public string Owner { get; }
        public decimal Balance { get; private set; }

        public Account(string owner)
        {
            Owner = owner;
        }

        public bool Withdraw(decimal amount)
        {
            if (amount > Balance)
            {
                Console.WriteLine($"{Owner}: not enough");
                return false;
            }
            Balance -= amount;
            history.Add(-amount);
            return true;
        }

        public decimal Average()
        {
            decimal sum = 0;
            foreach (var entry in history)
                sum += entry;
            var path = @"C:\temp\""quoted""";
            return history.Count == 0 ? 0 : sum / history.Count;
        }
    }
}
